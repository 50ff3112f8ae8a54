"""OpenVINO GenAI with continuous batching; its exporter writes float16 weights, the products are bfloat16."""

import os
import subprocess
import sys
from pathlib import Path

from worker import Limits, PeerEngine, serve


class OpenVinoEngine(PeerEngine):
    module = "openvino_genai"
    distributions = ("openvino-genai", "openvino")
    precision = "float16 weights, bfloat16 products"

    @staticmethod
    def prepare(folder: Path) -> None:
        target, partial = folder / "openvino", folder / "openvino.partial"
        if target.is_dir():
            return
        command = [sys.executable, "-m", "optimum.commands.optimum_cli", "export", "openvino", "--model", folder]
        command += ["--task", "text-generation-with-past", "--weight-format", "fp16", partial]
        if subprocess.run(command).returncode != 0:
            raise RuntimeError("optimum could not export the model; the log of the preparation says why")
        os.replace(partial, target)

    def __init__(self, folder: Path, limits: Limits) -> None:
        import openvino_genai

        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = 1
        scheduler.max_num_seqs = limits.max_num_seqs
        scheduler.max_num_batched_tokens = 2048
        scheduler.enable_prefix_caching = False
        properties = {"INFERENCE_NUM_THREADS": limits.threads, "INFERENCE_PRECISION_HINT": "bf16"}
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            str(folder / "openvino"), scheduler, "CPU", properties
        )

    def generate(self, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> list[list[int]]:
        import numpy as np
        import openvino
        import openvino_genai

        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        inputs = [openvino.Tensor(np.array([prompt], np.int64)) for prompt in prompts]
        outputs = self._pipeline.generate(inputs, [config] * len(prompts))
        return [list(output.m_generation_ids[0]) for output in outputs]


if __name__ == "__main__":
    serve(OpenVinoEngine)
