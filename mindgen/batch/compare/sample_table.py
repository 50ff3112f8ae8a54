"""Of a file's samples, what can be compared without their texts: about 100 bytes each."""

import math
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

import msgspec
import numpy as np

from mindgen.batch.compare.output_file import OutputSample

_DIGEST_BYTES = 16
_MOST_WORDS = 400  # of a text, in its sketch
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # over 64 bits: Knuth's multiplicative hashing by the golden ratio


class SampleTable:
    """The samples of a file, S of them, in its order.

    Attributes:
        keys, texts: (S,) digests of 16 bytes, of the key with the sample's number, and of the text.
        rows: (S,) uint64, equal for the samples of one row.
        has_key, failed: (S,) bool.
        sketches: (S,) uint64, of the words of the text: see sketch.
        numbers: (S,) float64 each, by name; NaN where there is none.
        finish_reasons: (S,) places in
        reason_names: what they stand for.
    """

    def __init__(self, samples: Iterable[OutputSample], scores: Iterable[str]) -> None:
        scores = tuple(scores)
        keys, texts, has_key, failed = bytearray(), bytearray(), bytearray(), bytearray()
        rows, sketches, reasons = array("Q"), array("Q"), array("I")
        numbers = {name: array("d") for name in ("characters", "tokens", "mean logprob", *scores)}
        self.reason_names: dict[str | None, int] = {}
        for sample in samples:
            row = digest(() if sample.key is None else sample.key)
            keys += blake2b(row + sample.sample.to_bytes(8, "little", signed=True), digest_size=_DIGEST_BYTES).digest()
            rows.append(int.from_bytes(row[:8], "little"))
            texts += digest((sample.text or "",))
            has_key.append(sample.key is not None)
            failed.append(sample.text is None)
            sketches.append(sketch(sample.text or ""))
            reasons.append(self.reason_names.setdefault(sample.finish_reason, len(self.reason_names)))
            numbers["characters"].append(math.nan if sample.text is None else len(sample.text))
            numbers["tokens"].append(math.nan if sample.tokens is None else sample.tokens)
            numbers["mean logprob"].append(_mean(sample.logprobs))
            for name, score in zip(scores, sample.scores, strict=True):
                numbers[name].append(math.nan if score is None else score)
        self.keys, self.texts = _digests(keys), _digests(texts)
        self.has_key, self.failed = np.frombuffer(has_key, bool), np.frombuffer(failed, bool)
        self.rows, self.sketches = np.frombuffer(rows, np.uint64), np.frombuffer(sketches, np.uint64)
        self.finish_reasons = np.frombuffer(reasons, np.uint32)
        self.numbers = {name: np.frombuffer(values, np.float64) for name, values in numbers.items()}

    def __len__(self) -> int:
        return len(self.keys)


def digest(texts: tuple[str, ...]) -> bytes:
    """16 bytes; msgspec keeps texts apart from each other."""
    return blake2b(msgspec.msgpack.encode([text.encode("utf-8", "surrogatepass") for text in texts]),
                   digest_size=_DIGEST_BYTES).digest()  # fmt: skip


def sketch(text: str) -> int:
    """64 bits of which about as many differ as the words of two texts do: 0 for the same, half for texts that have
    nothing in common (M. Charikar, Similarity estimation techniques from rounding algorithms, STOC 2002)."""
    words = text.split(maxsplit=_MOST_WORDS)[:_MOST_WORDS]
    if not words:
        return 0
    codes = np.array([crc32(word.encode("utf-8", "surrogatepass")) for word in words], np.uint64) * _SPREAD
    bits = np.unpackbits(codes.view(np.uint8).reshape(-1, 8), axis=1)  # (words, 64)
    votes = 2 * bits.sum(0, dtype=np.int32) > len(words)
    return int.from_bytes(np.packbits(votes).tobytes(), "little")


def _digests(data: bytearray) -> np.ndarray:
    return np.frombuffer(data, f"S{_DIGEST_BYTES}")


def _mean(logprobs: list[float] | None) -> float:
    numbers = [logprob for logprob in logprobs or () if isinstance(logprob, int | float)]
    return sum(numbers) / len(numbers) if numbers else math.nan
