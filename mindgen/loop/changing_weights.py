"""What a program may do with the weights of a model that serves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindgen.adapters.formats.peft import read_adapter_folder
from mindgen.engine.update_options import BASE, InFlight, UpdateOptions, UpdateReport
from mindgen.errors import ConfigError
from mindgen.loop.local_model import LocalModel
from mindgen.loop.replicas import Replicas
from mindgen.loop.weight_updates import OpenUpdate, UpdateRequest
from mindgen.weights.foreign_tensor import Weights, named_tensors


class ChangingWeights:
    """The part of an LLM that has new weights served, and memory given back."""

    _model: LocalModel
    _replicas: Replicas | None

    @property
    def weight_version(self) -> int:
        """Of the base model; 0 until new weights have come."""
        return self._model.base_version().version

    @property
    def weight_checksum(self) -> str:
        """The checksum of the base model's weights: the same for the same content, however it came."""
        return self._model.base_version().checksum

    def update_weights(
        self, weights: Weights, target: str = BASE, version: int | None = None, **options: Any
    ) -> UpdateReport:
        """Has new weights serve, all of them at once: each request sees the old ones or the new ones.

        Args:
            weights: names and tensors, of numpy, MindSpore or torch, one by one or as a dict; or a file or a folder
                of a checkpoint or an adapter. Names are Hugging Face's, PEFT's or MindFormers'; of the base model
                some may be missing, which stay.
            target: "base", or the name of an adapter, which may be a new one.
            version: of the new weights, above that of the old ones; None is the next one.
            options: those of UpdateOptions.

        Raises:
            WeightUpdateError: they are refused, all problems with their names at once; the old ones serve.
            MindgenError: the file is damaged, or the adapter does not fit the model.
        """
        if target != BASE and isinstance(weights, (str, Path)) and "adapter_config" not in options:
            weights, options["adapter_config"] = read_adapter_folder(Path(weights))
        update = self.open_update(UpdateRequest(target, version, UpdateOptions.read(options)))
        return update.run(named_tensors(weights, self._model.folder))

    def open_update(self, request: UpdateRequest) -> OpenUpdate:
        """As `update_weights`, for who gives tensors one by one.

        Raises:
            WeightUpdateError: another update has not ended, or the version does not go up.
        """
        self._require_no_replicas()
        return self._model.updates.open(request)

    def sleep(self, level: int = 1, in_flight: InFlight = "finish") -> None:
        """Gives memory back, until `wake_up`: that of the KV cache (1), or of the weights as well (2), which a file
        without a name keeps meanwhile. Requests are refused while the model sleeps.

        Args:
            in_flight: as in UpdateOptions; those that "continue" do so after `wake_up`.

        Raises:
            ConfigError: there is no such level; or the device is no CPU.
        """
        self._require_no_replicas()
        self._model.sleep(level, in_flight)

    @property
    def is_sleeping(self) -> bool:
        """Whether memory is given back, so that requests are refused."""
        return bool(self._model.asleep())

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Has memory back, with the weights as they were, new ones included.

        Args:
            tags: "weights", "kv_cache", or both; None is both.
        """
        self._require_no_replicas()
        self._model.wake_up(tags)

    def _require_no_replicas(self) -> None:
        if self._replicas is not None:
            raise ConfigError("weights cannot change yet with a data_parallel_size above 1: make an LLM for each")
