"""llama.cpp through the low-level interface of llama-cpp-python, many sequences in one batch."""

from pathlib import Path

from gguf_conversion import convert_to_gguf
from worker import Limits, PeerEngine, serve


class LlamaCppEngine(PeerEngine):
    module = "llama_cpp"
    distributions = ("llama-cpp-python",)
    precision = "bfloat16 GGUF"

    @staticmethod
    def prepare(folder: Path) -> None:
        if not (folder / "model-bf16.gguf").is_file():
            convert_to_gguf(folder, folder / "model-bf16.gguf")

    def __init__(self, folder: Path, limits: Limits) -> None:
        import llama_cpp

        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            str(folder / "model-bf16.gguf").encode(), llama_cpp.llama_model_default_params()
        )
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = max(limits.max_total_len, limits.max_model_len)
        params.n_seq_max = limits.max_num_seqs
        params.kv_unified = True  # one cache for all sequences, so that one may be long
        params.n_threads = params.n_threads_batch = limits.threads
        self._context = llama_cpp.llama_init_from_model(self._model, params)
        if not self._model or not self._context:
            raise RuntimeError("llama.cpp could not load the model")
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(params.n_batch, 0, 1)

    def generate(self, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> list[list[int]]:
        import llama_cpp

        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        outputs = [[token] for token in self._step(prompts, [0] * len(prompts))]
        for step in range(new_tokens - 1):
            starts = [len(prompt) + step for prompt in prompts]
            for output, token in zip(outputs, self._step([output[-1:] for output in outputs], starts), strict=True):
                output.append(token)
        return outputs

    def _step(self, tokens: list[list[int]], starts: list[int]) -> list[int]:
        """Feeds tokens of every sequence from its start on; the likeliest next token of each."""
        import llama_cpp
        import numpy as np

        batch, last = self._batch, []
        batch.n_tokens = 0
        for sequence, (ids, start) in enumerate(zip(tokens, starts, strict=True)):
            for offset, token in enumerate(ids):
                place = batch.n_tokens
                batch.token[place], batch.pos[place] = token, start + offset
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
                batch.logits[place] = offset == len(ids) - 1
                batch.n_tokens += 1
            last.append(batch.n_tokens - 1)
        status = llama_cpp.llama_decode(self._context, batch)
        if status != 0:
            raise RuntimeError(f"llama_decode gave {status}")
        rows = [llama_cpp.llama_get_logits_ith(self._context, place) for place in last]
        return [int(np.ctypeslib.as_array(row, (self._vocab_size,)).argmax()) for row in rows]


if __name__ == "__main__":
    serve(LlamaCppEngine)
