"""mindgen, through its engine, which takes token ids."""

from pathlib import Path

from worker import Limits, PeerEngine, serve


class MindgenEngine(PeerEngine):
    module = "mindgen"
    distributions = ("mindgen", "mindspore")

    def __init__(self, folder: Path, limits: Limits) -> None:
        from mindgen.adapters.registry import LIST_FILE, AdapterRegistry
        from mindgen.engine.engine_config import EngineConfig
        from mindgen.engine.engine_spec import EngineSpec
        from mindgen.engine.open_engine import open_engine
        from mindgen.kernels import plugin
        from mindgen.weights.architecture import read_model_config
        from mindgen.weights.weight_files import find_weights

        adapters = AdapterRegistry.read(folder) if (folder / LIST_FILE).is_file() else AdapterRegistry({})
        config = EngineConfig(
            max_num_seqs=limits.max_num_seqs,
            max_model_len=limits.max_model_len,
            enable_prefix_caching=False,  # prompts repeat from turn to turn
            num_threads=limits.threads,
        )
        spec = EngineSpec(read_model_config(folder), "bfloat16", config)
        self._engine = open_engine(spec, find_weights(folder, None, 1), adapters)
        self.precision = f"bfloat16, {plugin.load().instruction_set}, executor {config.executor}"

    def generate(self, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> list[list[int]]:
        from mindgen.sampling_params import SamplingParams

        params = SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True)
        requests = [
            self._engine.add_request(prompt, params, adapter) for prompt, adapter in zip(prompts, adapters, strict=True)
        ]
        while self._engine.has_unfinished():
            self._engine.step()
        return [request.sequences[0].output_token_ids for request in requests]


if __name__ == "__main__":
    serve(MindgenEngine)
