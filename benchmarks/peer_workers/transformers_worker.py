"""Hugging Face transformers on torch, eager."""

from pathlib import Path

from worker import Limits, PeerEngine, serve


class TransformersEngine(PeerEngine):
    module = "transformers"
    distributions = ("transformers", "torch")
    precision = "bfloat16, eager"

    def __init__(self, folder: Path, limits: Limits) -> None:
        import torch
        import transformers

        torch.set_num_threads(limits.threads)
        transformers.logging.set_verbosity_error()
        self._model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
        self._model.generation_config.eos_token_id = None

    def generate(self, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> list[list[int]]:
        import torch

        token_ids = torch.tensor(prompts)
        with torch.inference_mode():
            outputs = self._model.generate(
                token_ids,
                attention_mask=torch.ones_like(token_ids),
                max_new_tokens=new_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return outputs[:, token_ids.shape[1] :].tolist()


if __name__ == "__main__":
    serve(TransformersEngine)
