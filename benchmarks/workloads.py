"""What the engines are asked to do, and what that costs at least in bytes read and operations done."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mindgen.weights.architecture import read_model_config
from mindgen.weights.folder import map_weights


@dataclass(frozen=True)
class Workload:
    """Requests that come together, each with prompt_len tokens, each generating new_tokens.

    Attributes:
        rate: which tokens are counted, over which time: "decode" those after the first, over the time after the first;
            "prefill" the prompt's, over the time to the first new token; "output" all new ones, over the whole time.
    """

    name: str
    rate: str
    num_requests: int
    prompt_len: int
    new_tokens: int
    num_adapters: int = 0

    @property
    def title(self) -> str:
        requests = "1 request" if self.num_requests == 1 else f"{self.num_requests} requests at once"
        adapters = f" over {self.num_adapters} adapters" if self.num_adapters else ""
        return f"{self.name}: {requests}{adapters}, {self.prompt_len} -> {self.new_tokens} tokens"

    def prompts(self, turn: int, vocab_size: int) -> list[list[int]]:
        """Token ids that differ from turn to turn, so that no cache of prefixes helps."""
        generator = np.random.default_rng([turn, self.prompt_len])
        return generator.integers(0, vocab_size, (self.num_requests, self.prompt_len)).tolist()

    def adapters(self, names: list[str]) -> list[str | None]:
        if not self.num_adapters:
            return [None] * self.num_requests
        return [names[index % self.num_adapters] for index in range(self.num_requests)]

    def tokens_per_second(self, seconds: float, first_token_seconds: float | None) -> float:
        # In very short runs noise may leave no time after the first token; all tokens over all time is a lower bound.
        if self.rate == "decode" and seconds > first_token_seconds:
            return (self.new_tokens - 1) / (seconds - first_token_seconds)
        return self.num_requests * (self.prompt_len if self.rate == "prefill" else self.new_tokens) / seconds


FULL = [
    Workload("decode", "decode", 1, 32, 128),
    Workload("prefill", "prefill", 1, 1024, 1),
    Workload("batch", "output", 32, 128, 32),
    Workload("adapters", "output", 32, 128, 32, num_adapters=8),
]
QUICK = [
    Workload("decode", "decode", 1, 8, 32),
    Workload("prefill", "prefill", 1, 64, 1),
    Workload("batch", "output", 4, 16, 4),
    Workload("adapters", "output", 8, 16, 4, num_adapters=8),
]


def room_for(workloads: list[Workload]) -> dict[str, int]:
    """How many sequences, tokens of one and tokens of all sequences an engine must hold at once."""
    return {
        "max_num_seqs": max(w.num_requests for w in workloads),
        "max_model_len": max(w.prompt_len + w.new_tokens for w in workloads),
        "max_total_len": max(w.num_requests * (w.prompt_len + w.new_tokens) for w in workloads),
    }


@dataclass(frozen=True)
class ModelCosts:
    """What a token costs at least.

    Attributes:
        vocab_size: rows of the output layer.
        weight_bytes: read for every step of decoding.
        layer_weights: elements of the layers' matrices, each multiplied once for every token.
        head_weights: elements of the output layer, multiplied where a token is wanted.
        attention_width: query heads times head size, of all layers.
    """

    vocab_size: int
    weight_bytes: int
    layer_weights: int
    head_weights: int
    attention_width: int

    def prefill_operations(self, prompt_len: int) -> float:
        """Floating point operations of a prompt with one token wanted; queries see only keys before them."""
        products = 2 * (prompt_len * self.layer_weights + self.head_weights)
        return products + 4 * self.attention_width * prompt_len * (prompt_len + 1) / 2


def read_costs(folder: Path) -> ModelCosts:
    config = read_model_config(folder)
    tensors = map_weights(folder)
    embedding = tensors["model.embed_tokens.weight"].data
    rows_only = 0 if config.tie_word_embeddings else embedding.nbytes  # an embedding that is no output layer as well
    return ModelCosts(
        vocab_size=config.vocab_size,
        weight_bytes=sum(tensor.data.nbytes for tensor in tensors.values()) - rows_only,
        layer_weights=sum(t.data.size for name, t in tensors.items() if ".layers." in name and t.data.ndim == 2),
        head_weights=embedding.size,
        attention_width=config.num_layers * config.num_heads * config.head_size,
    )
