"""The device that a network runs on: this machine's CPU, or an Ascend NPU that MindSpore sees."""

import mindspore
from mindspore.communication import get_group_size, get_rank, init
from mindspore.device_context import ascend

from mindgen.errors import ConfigError
from mindgen.system import environment


def choose_device(device_target: str) -> str:
    """CPU or Ascend; auto is Ascend where MindSpore sees one.

    Raises:
        ConfigError: Ascend is wanted, and there is none.
    """
    if device_target == "CPU":
        return "CPU"
    reason = _why_no_ascend()
    if reason is None:
        return "Ascend"
    if device_target == "Ascend":
        raise ConfigError(f"device_target is Ascend, but {reason}: `mindgen doctor` says more; auto takes the CPU")
    return "CPU"


def open_device(device: str, rank: int, num_ranks: int) -> None:
    """Makes the device this process's, and with several ranks joins their communication group.

    Raises:
        ConfigError: MindSpore's group is another one.
    """
    launched = environment.launched_rank()
    if device != "CPU":
        mindspore.set_device(device, None if launched is None else launched.device_id)
    elif mindspore.get_context("device_target") != "CPU":  # MindSpore refuses to be told once it has run anything
        mindspore.set_device("CPU")
    if num_ranks == 1:
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)  # the one in which graphs can be given to a backend
        return
    mindspore.set_context(mode=mindspore.GRAPH_MODE, jit_config={"jit_level": "O0"})
    if environment.is_dry_run():
        environment.hide_other_ranks()
    init()
    if (get_rank(), get_group_size()) != (rank, num_ranks):
        raise ConfigError(
            f"engine: this is rank {rank} of {num_ranks}, and MindSpore says {get_rank()} of {get_group_size()}: start "
            f"all ranks with `mindgen launch`"
        )


def _why_no_ascend() -> str | None:
    if not ascend.is_available():
        return "MindSpore cannot load its Ascend backend, which needs CANN"
    if ascend.device_count() == 0 and not environment.is_dry_run():
        return "MindSpore finds no NPU"
    return None
