"""Compare the libraries of guided output, xgrammar and llguidance, over a vocabulary of Qwen's size.

    pip install llguidance; pip install --no-deps xgrammar apache-tvm-ffi    # xgrammar wants torch as well
    python benchmarks/guided.py

Both take turns over the same grammars and the same texts. "compile" is a first compilation, "mask" the median and the
99th percentile of the time of one mask. Below stands which texts each library accepts rightly.
"""

import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

VOCAB_SIZE = 151_936
NUM_TOKENS = 151_643
EOS_ID = 151_645
ROUNDS = 3

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": ["string", "null"]},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
ORDER = {
    "$defs": {"item": {"type": "object", "properties": {"sku": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
                                                        "count": {"type": "integer"}}, "required": ["sku", "count"]}},
    "type": "object",
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "state": {"enum": ["new", "paid", "sent"]},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "minItems": 1, "maxItems": 20},
        "note": {"type": "string", "maxLength": 200},
    },
    "required": ["id", "state", "items"],
}  # fmt: skip
TREE = {
    "$defs": {"node": {"type": "object", "properties": {
        "value": {"type": "number"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        "required": ["value", "children"], "additionalProperties": False}},
    "$ref": "#/$defs/node",
}  # fmt: skip
UUID = "123e4567-e89b-12d3-a456-426614174000"

# name: (kind, grammar, texts to accept, texts to refuse)
CASES: dict[str, tuple[str, Any, list[str], list[str]]] = {
    "person": ("json", PERSON, ['{"name": "北京 é 🙂", "age": 42}', '{"name": "", "age": 0, "email": null}'],
               ['{"name": "x", "age": 151}', '{"name": "x", "age": -1}', '{"age": 1}', '{"name": "x", "age": 01}',
                '{"name": "a\nb", "age": 1}', '{"name": "x", "age": 1, "other": 1}']),
    "order": ("json", ORDER, [f'{{"id": "{UUID}", "state": "paid", "items": [{{"sku": "ABC-1234", "count": 3}}]}}',
                              f'{{"id": "{UUID}", "state": "new", "items": [{{"sku": "ABC-1234", "count": 3}}], '
                              f'"note": "{"long text " * 20}"}}'],
              [f'{{"id": "{UUID}", "state": "lost", "items": [{{"sku": "ABC-1234", "count": 3}}]}}',
               f'{{"id": "{UUID}", "state": "new", "items": []}}', '{"id": "no", "state": "new", "items": []}',
               f'{{"id": "{UUID}", "state": "new", "items": [{{"sku": "abc-1", "count": 3}}]}}',
               f'{{"id": "{UUID}", "state": "new", "items": [{{"sku": "ABC-1234", "count": 3}}], '
               f'"note": "{"x" * 201}"}}']),
    "tree": ("json", TREE, ['{"value": -1.5e3, "children": [{"value": 2, "children": []}]}'],
             ['{"value": .5, "children": []}', '{"value": 1, "children": [{}]}']),
    "object": ("json", {"type": "object"}, ['{"a": [1, {"b": null}], "ключ": "\\n"}', "{}"], ["[]", '{"a": nul}']),
    "escaped": ("json", {"type": "string"}, ['"\\u00e9\\u5317"', '"\\u001f\\t\\/"'], ['"\\x41"', '"\\u12"']),
    "email": ("regex", r"[a-z0-9.]{1,20}@[a-z]{2,10}\.(com|org)", ["a.b@cd.org"], ["@cd.org", "a@cd.net", "a@cd.orgx"]),
    "date": ("regex", r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", ["2024-02-29"], ["2024-13-01", "2024-02-00"]),
    "chinese": ("regex", "[一-龥]{2,40}[。!]", ["我爱北京。"], ["abc。", "我。"]),
    "words": ("regex", r"([A-Za-z]+ ){5,50}[A-Za-z]+\.", ["the quick brown fox jumped over."], ["one two."]),
}  # fmt: skip


class Library(Protocol):
    name: str

    def compile(self, kind: str, grammar: Any) -> Callable[[], "Matcher"]: ...


class Matcher(Protocol):
    def fill(self, row: np.ndarray) -> None: ...

    def accept(self, token_id: int) -> bool: ...

    def rollback(self, count: int) -> None: ...


class LLGuidance:
    name = "llguidance"

    def __init__(self, tokens: list[bytes]) -> None:
        import llguidance

        self._module = llguidance
        self._tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(_Wrapped(tokens)))

    def compile(self, kind: str, grammar: Any) -> Callable[[], Matcher]:
        matcher = self._module.LLMatcher
        options = {"json_allow_general_unicode_escapes": True}
        text = (
            matcher.grammar_from_json_schema(grammar, options)
            if kind == "json"
            else matcher.grammar_from_regex(grammar)
        )
        compiled = matcher(self._tokenizer, text, log_level=0)
        if compiled.is_error():
            raise ValueError(compiled.get_error())
        return lambda: _LLGuidanceMatcher(compiled.deep_copy())


class _LLGuidanceMatcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, row: np.ndarray) -> None:
        self._matcher.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)

    def accept(self, token_id: int) -> bool:
        if token_id == EOS_ID:
            return self._matcher.is_accepting()
        return self._matcher.try_consume_tokens([token_id]) == 1

    def rollback(self, count: int) -> None:
        self._matcher.rollback(count)


class _Wrapped:
    """A vocabulary in the form that llguidance takes."""

    def __init__(self, tokens: list[bytes]) -> None:
        self.eos_token_id = EOS_ID
        self.bos_token_id = None
        self.tokens = tokens + [b""] * (VOCAB_SIZE - len(tokens))
        self.special_token_ids = list(range(NUM_TOKENS, len(tokens)))
        self._ids = {token: token_id for token_id, token in enumerate(tokens) if token_id < NUM_TOKENS}

    def __call__(self, text: bytes | str) -> list[int]:
        return greedy_tokens(self._ids, text.encode() if isinstance(text, str) else text)


class XGrammar:
    name = "xgrammar"

    def __init__(self, tokens: list[bytes]) -> None:
        import xgrammar

        self._module = xgrammar
        info = xgrammar.TokenizerInfo(
            list(tokens), xgrammar.VocabType.RAW, vocab_size=VOCAB_SIZE, stop_token_ids=[EOS_ID]
        )
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=2, cache_enabled=False)

    def compile(self, kind: str, grammar: Any) -> Callable[[], Matcher]:
        if kind == "json":
            compiled = self._compiler.compile_json_schema(json.dumps(grammar), strict_mode=False)
        else:
            compiled = self._compiler.compile_regex(grammar)
        return lambda: _XGrammarMatcher(self._module.GrammarMatcher(compiled))


class _XGrammarMatcher:
    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def fill(self, row: np.ndarray) -> None:
        import torch

        self._matcher.fill_next_token_bitmask(torch.from_numpy(row).view(1, -1))

    def accept(self, token_id: int) -> bool:
        return self._matcher.accept_token(token_id)

    def rollback(self, count: int) -> None:
        self._matcher.rollback(count)


def make_vocabulary() -> list[bytes]:
    """Byte-level tokens like Qwen's: all bytes, then pieces of words with and without a space, numbers, punctuation,
    Chinese and pieces of code."""
    chooser = random.Random(0)
    syllables = [a + b for a in "bcdfghjklmnpqrstvwxyz" for b in ("a", "e", "i", "o", "u", "er", "in", "on", "al")]
    marks = [
        '"',
        '":',
        '",',
        '{"',
        '"}',
        '": "',
        '", "',
        "[]",
        "{}",
        "},",
        "],",
        "\n",
        "\n\n",
        "  ",
        "    ",
        ". ",
        "://",
    ]
    tokens: dict[bytes, None] = {bytes([byte]): None for byte in range(256)}
    tokens.update((mark.encode(), None) for mark in marks)
    tokens.update((name.encode(), None) for name in ("name", "age", "email", "items", "state", "null", "true", "false"))
    tokens.update((b" " * width, None) for width in range(2, 40))
    while len(tokens) < NUM_TOKENS:
        kind = chooser.random()
        word = "".join(chooser.choices(syllables, k=chooser.randint(1, 4)))
        if kind < 0.2:
            word = "".join(chr(chooser.randint(0x4E00, 0x9FA5)) for _ in range(chooser.choice((1, 1, 2, 2, 3, 4))))
        elif kind < 0.3:
            word = chooser.choice(marks) + word
        elif kind < 0.35:
            word = word + chooser.choice(marks)
        elif kind < 0.45:
            word = chr(chooser.choice((0x410, 0xE0, 0x5D0, 0x621, 0x3041, 0xAC00)) + chooser.randint(0, 25)) + word[:2]
        elif kind < 0.5:
            word = word.capitalize()
        if chooser.random() < 0.45:
            word = " " + word
        tokens[word.encode()] = None
    return [*tokens, *(f"<|special_{place}|>".encode() for place in range(22))]


def greedy_tokens(ids: dict[bytes, int], data: bytes) -> list[int]:
    """The longest token first."""
    tokens = []
    while data:
        length = next(length for length in range(min(len(data), 40), 0, -1) if data[:length] in ids)
        tokens.append(ids[data[:length]])
        data = data[length:]
    return tokens


def accepts(matcher: Matcher, token_ids: list[int]) -> bool:
    return all(matcher.accept(token_id) for token_id in [*token_ids, EOS_ID])


def mask_times(start: Callable[[], Matcher], token_ids: list[int], row: np.ndarray) -> list[float]:
    matcher, times = start(), []
    for token_id in [*token_ids, EOS_ID]:
        began = time.perf_counter()
        matcher.fill(row)
        times.append(time.perf_counter() - began)
        if not row.view(np.uint32)[token_id // 32] >> (token_id % 32) & 1:
            break  # the judgement below names the text
        matcher.accept(token_id)
    return times


def main() -> None:
    tokens = make_vocabulary()
    ids = {token: token_id for token_id, token in enumerate(tokens) if token_id < NUM_TOKENS}
    row = np.zeros(-(-VOCAB_SIZE // 32), np.int32)
    libraries: list[Library] = []
    for kind in (LLGuidance, XGrammar):
        began = time.perf_counter()
        libraries.append(kind(tokens))
        print(f"{kind.name}: vocabulary read in {time.perf_counter() - began:.2f} s")
    wrong: list[str] = []
    print(f"{'grammar':9} {'library':11} {'compile ms':>11} {'mask us':>9} {'p99 us':>9} {'max us':>9} {'start us':>9}")
    for name, (kind, grammar, good, bad) in CASES.items():
        figures: dict[str, list[tuple[float, list[float], float]]] = {library.name: [] for library in libraries}
        for _ in range(ROUNDS):
            for library in libraries:
                began = time.perf_counter()
                start = library.compile(kind, grammar)
                compiled = time.perf_counter() - began
                times = [value for text in good for value in mask_times(start, greedy_tokens(ids, text.encode()), row)]
                began = time.perf_counter()
                start()
                figures[library.name].append((compiled, times, time.perf_counter() - began))
        for library in libraries:
            runs = figures[library.name]
            times = sorted(value for _, run, _ in runs for value in run)
            print(
                f"{name:9} {library.name:11} {min(run[0] for run in runs) * 1e3:11.2f} "
                f"{statistics.median(times) * 1e6:9.1f} {times[int(len(times) * 0.99)] * 1e6:9.1f} "
                f"{times[-1] * 1e6:9.1f} {min(run[2] for run in runs) * 1e6:9.1f}"
            )
            start = library.compile(kind, grammar)
            wrong += [f"{library.name}, {name}: refuses {text!r}" for text in good
                      if not accepts(start(), greedy_tokens(ids, text.encode()))]  # fmt: skip
            wrong += [f"{library.name}, {name}: accepts {text!r}" for text in bad
                      if accepts(start(), greedy_tokens(ids, text.encode()))]  # fmt: skip
    print("\n".join(wrong) if wrong else "both judge every text rightly")


if __name__ == "__main__":
    main()
