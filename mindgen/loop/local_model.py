"""A model in this process: its engine's loop, and what turns texts into tokens and back."""

from collections.abc import Collection
from pathlib import Path

from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.engine.engine import Engine
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.metrics import EngineMetrics
from mindgen.engine.open_engine import open_engine
from mindgen.engine.sequence import BaseVersion
from mindgen.engine.update_options import InFlight
from mindgen.engine.weight_control import Change, check_level, check_tags
from mindgen.loop.engine_loop import EngineLoop
from mindgen.loop.model_files import ModelFiles, ModelSetup
from mindgen.loop.text_engine import TextEngine
from mindgen.loop.weight_updates import WeightUpdates
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.runner.profiling import Profile
from mindgen.text.tokenizer import Tokenizer, load_tokenizer
from mindgen.text.vocabulary_size import check_vocabulary_size


class LocalModel:
    """Loads the model, whose requests go to `loop`.

    Args:
        nodes: the other machines that the network lies on as well, if it does.

    Attributes:
        dtype: "bfloat16", "float16" or "float32".
        longest_sequence: in tokens.

    Raises:
        MindgenError: it cannot be served; the message says why.
    """

    def __init__(self, files: ModelFiles, setup: ModelSetup, nodes: OtherNodes | None = None) -> None:
        self.folder = files.folder
        self.config = files.model_config()
        self.tokenizer: Tokenizer = load_tokenizer(self.folder)
        check_vocabulary_size(self.tokenizer, self.config.vocab_size, files.model)
        self.registry = files.registry()
        weights = files.weights(setup.config.ranks_per_replica)
        self.dtype = weights.choose_dtype(self.config.dtype) if setup.dtype == "auto" else setup.dtype
        spec = EngineSpec(self.config, self.dtype, setup.config)
        engine = open_engine(spec, weights, self.registry, nodes)
        self.longest_sequence = spec.max_model_len
        self.memory_plan = engine.memory_plan
        self._texts = TextEngine(engine, self.tokenizer, self.config, self.registry, setup.on_missing_adapter)
        self.loop = EngineLoop(self._texts)
        self.updates = WeightUpdates(self.loop, engine, self.registry)

    def add_adapter(self, adapter_id: str, folder: Path) -> None:
        self.registry.add(adapter_id, folder)

    def remove_adapter(self, adapter_id: str) -> None:
        self.registry.remove(adapter_id)

    def release_adapters(self) -> int:
        """As Engine's."""
        return self.loop.call(Engine.release_adapters)

    def list_adapters(self) -> list[AdapterStatus]:
        """Every adapter that has a name now, with what it has done."""
        versions = self.registry.versions()
        return self.loop.call(lambda engine: [engine.adapter_status(version) for version in versions])

    def metrics(self) -> EngineMetrics:
        return self.loop.call(Engine.metrics)

    def reset_prefix_cache(self) -> None:
        self.loop.call(lambda engine: engine.reset_prefix_cache())

    def base_version(self) -> BaseVersion:
        return self.loop.call(lambda engine: engine.weights.base)

    def sleep(self, level: int, in_flight: InFlight) -> None:
        """As LLM's."""
        check_level(level)

        def fall_asleep() -> None:
            engine.weights.sleep(level)

        engine = self.loop.call(lambda engine: engine)
        self.loop.change(Change(fall_asleep, in_flight, "sleep"))

    def asleep(self) -> set[str]:
        """What has given its memory back."""
        return self.loop.call(lambda engine: set(engine.weights.asleep))

    def wake_up(self, tags: Collection[str] | None) -> None:
        self.loop.call(lambda engine: engine.weights.wake(check_tags(tags)))

    def record(self, profile: Profile | None) -> None:
        """Has the steps from now on recorded, or no longer."""

        def begin(_: object) -> None:
            self._texts.profile = profile

        self.loop.call(begin)

    def close(self) -> None:
        self.loop.close()
