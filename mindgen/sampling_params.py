"""How a request's next tokens are chosen."""

from dataclasses import dataclass

from mindgen.errors import RequestError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Validated sampling parameters, with vLLM's names and meanings.

    Attributes:
        max_tokens: how many tokens to generate at most.
        temperature: 0 is greedy; else logits are divided by it.
        top_k: sample among the k likeliest tokens; 0 or -1 is all.
        top_p: sample among the fewest tokens whose probabilities reach p; the token that crosses p is kept.
        repetition_penalty: > 1 makes tokens of the prompt and the output less likely (CTRL, arXiv:1909.05858).
        seed: of this request alone; None draws a fresh one.
        ignore_eos: go on to max_tokens even past the end-of-sequence token.

    Raises:
        RequestError: a value is outside its range.
    """

    max_tokens: int = 16
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False

    def __post_init__(self) -> None:
        _require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "at least 1")
        _require(0 <= self.temperature < float("inf"), "temperature", self.temperature, "0 (greedy) or more")
        _require(self.top_k >= -1, "top_k", self.top_k, "0 or -1 (all tokens) or at least 1")
        _require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0 and at most 1")
        penalty = self.repetition_penalty
        _require(0 < penalty < float("inf"), "repetition_penalty", penalty, "above 0")
        _require(self.seed is None or self.seed >= 0, "seed", self.seed, "0 or more")

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0 or self.top_k == 1


def _require(valid: bool, field: str, value: object, expected: str) -> None:
    if not valid:
        raise RequestError(f"{field} must be {expected}, not {value}")
