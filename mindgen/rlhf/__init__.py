"""What a trainer uses: weights for a running model, from this process (`LLM.update_weights`) or from another one.

The names below load lazily: a trainer's process needs numpy alone to send.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindgen.rlhf.receiver import WeightReceiver as WeightReceiver
    from mindgen.rlhf.sender import WeightSender as WeightSender
    from mindgen.rlhf.sender import WeightSendError as WeightSendError

_HOMES = {"WeightReceiver": "receiver", "WeightSender": "sender", "WeightSendError": "sender"}
__all__ = ["WeightReceiver", "WeightSendError", "WeightSender"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mindgen.rlhf' has no attribute '{name}'")
    return getattr(import_module(f"mindgen.rlhf.{_HOMES[name]}"), name)
