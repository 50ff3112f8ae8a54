"""A model folder's tokenizer as the metadata of a GGUF file, which llama.cpp reads and gguf_tokenizer.py reads back."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError, ModelError, warn
from mindgen.text.chat_template import load_chat_templates
from mindgen.text.gguf_tokenizer import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    ignores_merges,
    known_splittings,
    splitting,
)
from mindgen.text.sentencepiece_file import ModelSpec, read_pieces, read_spec
from mindgen.text.tokenizer import HuggingFaceTokenizer, SentencePieceTokenizer, Tokenizer, load_tokenizer
from mindgen.text.tokenizer_config import ConfiguredToken, read_tokenizer_config
from mindgen.text.vocabulary_size import check_vocabulary_size

_ADDED_SCORE = -1000.0  # as llama.cpp gives it to tokens that no pieces merge to
_MOST_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_PROBES = ("", "Hello  world, 3.14\n\tis  pi.", "  我爱北京 — naïve 👩", "x=[1,2];\r\n\n")
_TEMPLATE = "tokenizer.chat_template"


def tokenizer_metadata(folder: Path, vocab_size: int, ends: Sequence[int]) -> dict[str, Any]:
    """The metadata of the tokenizer and the chat templates in the folder.

    Args:
        vocab_size: the model's, up to which the file names all tokens.
        ends: the ids with which the model ends an output.

    Raises:
        ModelError: there is no tokenizer, or it is of a kind for which GGUF has no place.
    """
    tokenizer = _expressible(load_tokenizer(folder), folder)
    check_vocabulary_size(tokenizer, vocab_size, folder)
    try:
        metadata = _of_kind(tokenizer, folder, vocab_size)
    except (CheckpointError, ModelError) as error:
        raise ModelError(f"{folder}: the tokenizer cannot be written as GGUF: {error}") from error
    metadata |= {"add_bos_token": False, "add_eos_token": False} | _added_ends(tokenizer) | _named(tokenizer, ends)
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()} | _templates(folder)


def _expressible(tokenizer: Tokenizer, folder: Path) -> Tokenizer:
    """The tokenizer itself, or the one of a tokenizer.model beside its tokenizer.json, which tells what GGUF needs.

    Raises:
        ModelError: the two differ.
    """
    path = folder / "tokenizer.model"
    if not isinstance(tokenizer, HuggingFaceTokenizer) or tokenizer.is_byte_level or not path.is_file():
        return tokenizer
    config = read_tokenizer_config(folder)
    for legacy in (False, True):
        other = SentencePieceTokenizer(path, config | {"legacy": legacy})
        names = [f"{name} {text}{name}" for name in other.special_tokens.values() for text in _PROBES]
        wrong = [text for text in (*_PROBES, *names) if tokenizer.encode(text) != other.encode(text)]
        if not wrong:
            return other
    raise ModelError(f"{folder}: tokenizer.json and tokenizer.model give different ids of {wrong[0]!r}: remove one")


def _of_kind(tokenizer: Tokenizer, folder: Path, vocab_size: int) -> dict[str, Any]:
    if isinstance(tokenizer, HuggingFaceTokenizer):
        return _byte_level(tokenizer.description(), vocab_size)
    assert isinstance(tokenizer, SentencePieceTokenizer)
    if tokenizer.adds_space and not tokenizer.spaces_each_segment:
        warn(
            f"{folder}: the tokenizer puts no space behind special tokens (legacy: false), which GGUF cannot tell: "
            "there will be one, as in llama.cpp"
        )
    return _sentencepiece(tokenizer, read_spec(folder / "tokenizer.model"), vocab_size)


def _byte_level(description: Mapping[str, Any], vocab_size: int) -> dict[str, Any]:
    """Of a tokenizer.json: GGUF's kind gpt2."""
    model = description["model"]
    unlike = [key for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout") if model.get(key)]
    if model["type"] != "BPE" or model.get("byte_fallback") or unlike:
        raise ModelError(
            f"expected a BPE of bytes, and it is a {model['type']} of another kind: a tokenizer.model can be"
        )
    ids = dict(model["vocab"])
    types = dict.fromkeys(ids.values(), NORMAL)
    for token in description["added_tokens"]:
        _check_added(
            ConfiguredToken(
                token["content"], lstrip=token["lstrip"], rstrip=token["rstrip"], single_word=token["single_word"]
            )
        )
        ids[token["content"]] = token["id"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    tokens = {token_id: token for token, token_id in ids.items()}
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    wrong = next((merge for merge in merges if merge.count(" ") != 1), None)
    if wrong is not None:
        raise ModelError(f"the merge {wrong!r} has a space in one of its parts")
    return {
        "model": "gpt2",
        "pre": _name_of_splitting(description),
        "tokens": [tokens.get(token_id, f"[PAD{token_id}]") for token_id in range(vocab_size)],
        "token_type": np.array([types.get(token_id, UNUSED) for token_id in range(vocab_size)], np.int32),
        "merges": merges,
    }


def _name_of_splitting(description: Mapping[str, Any]) -> str:
    """tokenizer.ggml.pre, by which readers know how texts are split into words."""
    ours = _plain(description["pre_tokenizer"]), _plain(description["normalizer"])
    for name in known_splittings():
        words, normalizer = splitting(name)
        states = [None if each is None else json.loads(each.__getstate__()) for each in (words, normalizer)]
        if ours == (_plain(states[0]), _plain(states[1])):
            if ignores_merges(name) != bool(description["model"].get("ignore_merges")):
                raise ModelError(f"it splits texts like {name!r}, but differs in ignore_merges")
            return name
    raise ModelError(
        "it splits texts into words in a way that has no name in GGUF: named are those of "
        f"{', '.join(known_splittings())}"
    )


def _plain(state: Any) -> Any:
    """Without what changes no ids, and without sequences of one."""
    if not isinstance(state, dict):
        return state
    parts = state.get("pretokenizers", state.get("normalizers"))
    if parts is not None:
        return _plain(parts[0]) if len(parts) == 1 else [_plain(part) for part in parts]
    return {key: value for key, value in state.items() if key not in ("trim_offsets", "behavior")} | (
        {"behavior": str(state["behavior"]).lower()} if "behavior" in state else {}
    )


def _sentencepiece(tokenizer: SentencePieceTokenizer, spec: ModelSpec, vocab_size: int) -> dict[str, Any]:
    """Of a tokenizer.model: GGUF's kind llama."""
    if not spec.is_bpe:
        raise ModelError("tokenizer.model is no BPE of sentencepiece, but a unigram or another model")
    if not spec.escapes_whitespaces or spec.puts_spaces_behind:
        raise ModelError("tokenizer.model has no symbol for spaces, or has it behind words")
    pieces = read_pieces(tokenizer.processor)
    tokens = [piece.text for piece in pieces]
    scores = [piece.score for piece in pieces]
    types = [piece.kind for piece in pieces]
    for token_id in range(len(pieces), vocab_size):
        added = tokenizer.tokens.get(token_id)
        tokens.append(f"[PAD{token_id}]" if added is None else added.content)
        types.append(UNUSED if added is None else CONTROL if added.special else USER_DEFINED)
        scores.append(_ADDED_SCORE)
    for token_id, token in tokenizer.tokens.items():
        _check_added(token)
        if tokens[token_id] != token.content:
            raise ModelError(f"the token {token.content!r} stands in the place of the piece {tokens[token_id]!r}")
        if types[token_id] != UNKNOWN:
            types[token_id] = CONTROL if token.special else USER_DEFINED
    metadata = {
        "model": "llama",
        "pre": "default",
        "tokens": tokens,
        "scores": np.array(scores, np.float32),
        "token_type": np.array(types, np.int32),
        "add_space_prefix": spec.adds_dummy_prefix and tokenizer.adds_space,
        "remove_extra_whitespaces": spec.removes_extra_whitespaces,
    }
    return metadata | ({"precompiled_charsmap": np.frombuffer(spec.charsmap, np.uint8)} if spec.charsmap else {})


def _check_added(token: ConfiguredToken) -> None:
    flags = [flag for flag in ("lstrip", "rstrip", "single_word") if getattr(token, flag)]
    if flags:
        raise ModelError(f"the token {token.content!r} has {' and '.join(flags)}, for which GGUF has no place")


def _added_ends(tokenizer: Tokenizer) -> dict[str, bool]:
    """Whether BOS stands before texts, and EOS behind them."""
    plain, whole = tokenizer.encode("a", add_special_tokens=False), tokenizer.encode("a")
    place = next((at for at in range(len(whole)) if whole[at : at + len(plain)] == plain), 0)
    before, behind = whole[:place], whole[place + len(plain) :]
    if before not in ([], [tokenizer.bos_id]) or behind not in ([], [tokenizer.eos_id]):
        raise ModelError(f"GGUF: the tokenizer puts {before} before texts and {behind} behind: only BOS and EOS can be")
    return {"add_bos_token": bool(before), "add_eos_token": bool(behind)}


def _named(tokenizer: Tokenizer, ends: Sequence[int]) -> dict[str, int]:
    """The ids that have names: of several ends the tokenizer's EOS is the first."""
    named: dict[str, int | None] = {"bos_token_id": tokenizer.bos_id}
    for key, name in (("unknown_token_id", "unk_token"), ("padding_token_id", "pad_token")):
        named[key] = tokenizer.token_id(tokenizer.special_tokens.get(name, ""))
    ordered = sorted(dict.fromkeys(ends), key=lambda end: end != tokenizer.eos_id)
    if len(ordered) > len(_MOST_ENDS):
        raise ModelError(
            f"GGUF has places for {len(_MOST_ENDS)} tokens that end an output, and the model has {ordered}"
        )
    if tokenizer.eos_id is not None and tokenizer.eos_id not in ordered:
        warn(
            f"the tokenizer's EOS is {tokenizer.eos_id}, with which the model ends no output: GGUF has one place for "
            f"both, and gets {ordered[0] if ordered else 'none'}"
        )
    named |= dict(zip(_MOST_ENDS, ordered, strict=False))
    return {key: token_id for key, token_id in named.items() if token_id is not None}


def _templates(folder: Path) -> dict[str, Any]:
    sources = dict(load_chat_templates(folder).sources)
    default = sources.pop("default", None)
    metadata: dict[str, Any] = {} if default is None else {_TEMPLATE: default}
    if sources:
        metadata["tokenizer.chat_templates"] = list(sources)
    return metadata | {f"{_TEMPLATE}.{name}": source for name, source in sources.items()}
