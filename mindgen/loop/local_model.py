"""A model in this process: its engine's loop, and what turns texts into tokens and back."""

from pathlib import Path

from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.adapters.registry import AdapterVersion
from mindgen.engine.engine import Engine
from mindgen.engine.metrics import EngineMetrics
from mindgen.engine.open_engine import open_engine
from mindgen.loop.engine_loop import EngineLoop
from mindgen.loop.model_files import ModelFiles, ModelSetup
from mindgen.loop.text_engine import TextEngine
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.runner.profiling import Profile
from mindgen.text.tokenizer import Tokenizer, load_tokenizer
from mindgen.weights.architecture import read_model_config


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
        self.config = read_model_config(self.folder)
        self.tokenizer: Tokenizer = load_tokenizer(self.folder)
        self.registry = files.registry()
        weights = files.weights(setup.config.ranks_per_replica)
        self.dtype = weights.choose_dtype(self.config.dtype) if setup.dtype == "auto" else setup.dtype
        engine = open_engine(weights, self.config, self.registry, self.dtype, setup.config, nodes)
        self.longest_sequence = setup.config.longest_sequence(self.config.max_position)
        self.memory_plan = engine.memory_plan
        self._texts = TextEngine(engine, self.tokenizer, self.config, self.registry, setup.on_missing_adapter)
        self.loop = EngineLoop(self._texts)
        self._nameless: list[AdapterVersion] = []

    def add_adapter(self, adapter_id: str, folder: Path) -> None:
        before = {version.adapter_id: version for version in self.registry.versions()}
        self.registry.add(adapter_id, folder)
        self._release(before.get(adapter_id))

    def remove_adapter(self, adapter_id: str) -> None:
        before = self.registry.get(adapter_id)
        self.registry.remove(adapter_id)
        self._release(before)

    def release_adapters(self) -> int:
        """Gives back the memory of adapters without a name that nobody uses; returns how many are still used."""
        self._release(None)
        return len(self._nameless)

    def _release(self, version: AdapterVersion | None) -> None:
        nameless = [*self._nameless, *([] if version is None else [version])]
        self._nameless = self.loop.call(lambda engine: [each for each in nameless if not engine.release_adapter(each)])

    def list_adapters(self) -> list[AdapterStatus]:
        """Every adapter that has a name now, with what it has done."""
        versions = self.registry.versions()
        return self.loop.call(lambda engine: [engine.adapter_status(version) for version in versions])

    def metrics(self) -> EngineMetrics:
        return self.loop.call(Engine.metrics)

    def reset_prefix_cache(self) -> None:
        self.loop.call(lambda engine: engine.reset_prefix_cache())

    def record(self, profile: Profile | None) -> None:
        """Has the steps from now on recorded, or no longer."""

        def begin(_: object) -> None:
            self._texts.profile = profile

        self.loop.call(begin)

    def close(self) -> None:
        self.loop.close()
