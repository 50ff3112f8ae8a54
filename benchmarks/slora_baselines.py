"""What others do with a batch of many adapters: merge and swap, one group after another, or PEFT's mixed batch."""

import importlib.util
import json
import time
from pathlib import Path

from safetensors import safe_open


def is_available() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers", "peft"))


def merge_seconds(model: Path, adapter: Path) -> float:
    """To add an adapter to the weights of a model in memory, by torch in the model's dtype; the faster of two times."""
    import torch

    config = json.loads((adapter / "adapter_config.json").read_text())
    scaling = config["lora_alpha"] / config["r"]
    with (
        safe_open(model / "model.safetensors", "pt") as weights,
        safe_open(adapter / "adapter_model.safetensors", "pt") as halves,
    ):
        modules = sorted({name.rpartition(".lora_")[0] for name in halves.keys()})  # noqa: SIM118
        merged = {
            name: weights.get_tensor(f"{name.removeprefix('base_model.model.')}.weight").clone() for name in modules
        }
        times = []
        for _ in range(2):
            started = time.perf_counter()
            for name, weight in merged.items():
                b, a = (halves.get_tensor(f"{name}.lora_{half}.weight") for half in "BA")
                torch.addmm(weight, b, a, alpha=scaling, out=weight)
            times.append(time.perf_counter() - started)
    return min(times)


class PeftBatch:
    """PEFT's mixed batch: every request names its adapter, and each layer goes through the adapters one by one."""

    def __init__(self, model: Path, adapters: dict[str, Path]) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        self._torch = torch
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        (first, path), *others = adapters.items()
        self._model = PeftModel.from_pretrained(base, path, adapter_name=first, autocast_adapter_dtype=False).eval()
        for name, path in others:
            self._model.load_adapter(path, adapter_name=name, autocast_adapter_dtype=False)

    def rate(self, prompts: list[list[int]], names: list[str | None], new_tokens: int) -> float:
        """Tokens per second."""
        torch = self._torch
        ids = torch.tensor(prompts)
        options = {"max_new_tokens": new_tokens, "min_new_tokens": new_tokens, "do_sample": False, "pad_token_id": 0}
        started = time.perf_counter()
        with torch.inference_mode():
            self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                adapter_names=[name or "__base__" for name in names],
                **options,
            )
        return len(prompts) * new_tokens / (time.perf_counter() - started)
