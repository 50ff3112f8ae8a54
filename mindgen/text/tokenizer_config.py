"""What a model folder says about its tokenizer beside the vocabulary: class, special and added tokens, options."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindgen.errors import ModelError
from mindgen.system.json_file import read_json_object

VOCABULARY_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "*.tiktoken")
_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "*.tiktoken",
)  # fmt: skip
_DECODER = "added_tokens_decoder"
_EXTRA = "extra_special_tokens"
_ADDITIONAL = "additional_special_tokens"
_NAMED = "model_specific_special_tokens"
_FLAGS = ("lstrip", "rstrip", "single_word")


def tokenizer_paths(folder: Path) -> list[Path]:
    """The files of the folder's tokenizer; none where there is no vocabulary among them."""
    files = [path for pattern in _FILES for path in sorted(folder.glob(pattern)) if path.is_file()]
    return files if any(path.match(pattern) for path in files for pattern in VOCABULARY_FILES) else []


@dataclass(frozen=True, slots=True)
class ConfiguredToken:
    """A token of the configuration, which is found in texts as a whole.

    Attributes:
        token_id: None where the configuration does not tell.
        special: it stands for no text of its own.
        normalized: it is looked for in the text as the tokenizer normalizes it.
        lstrip, rstrip: it takes the spaces beside it along.
        single_word: it is no part of a longer word.
    """

    content: str
    token_id: int | None = None
    special: bool = True
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


def read_tokenizer_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json; special_tokens_map.json overrides it, unless it is of the newer kind that lists the added
    tokens itself. Empty where there is neither."""
    path, map_path = folder / "tokenizer_config.json", folder / "special_tokens_map.json"
    config = read_json_object(path, ModelError) if path.is_file() else {}
    if _ADDITIONAL in config:
        config.setdefault(_EXTRA, config.pop(_ADDITIONAL))
    _name_extra_tokens(config)
    if config.get(_DECODER) is None and map_path.is_file():
        listed = config.get(_EXTRA)
        config |= read_json_object(map_path, ModelError)
        if isinstance(listed, list) and isinstance(config[_EXTRA], list) and config[_EXTRA] is not listed:
            config[_EXTRA] = listed + config[_EXTRA]
        _name_extra_tokens(config)
    return config


def read_special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """The named tokens of a configuration: {"bos_token": "<s>", ...}."""
    return {name: token.content for name, token in _named_tokens(config).items()}


def read_configured_tokens(folder: Path, config: Mapping[str, Any]) -> list[ConfiguredToken]:
    """All tokens that the configuration adds to the vocabulary or calls special, those first whose ids it tells.

    Raises:
        ModelError: a token is malformed.
    """
    decoder = config.get(_DECODER)
    try:
        special = list(_named_tokens(config).values())
        names = {token.content for token in special}
        tokens = [_token(value, int(token_id), names) for token_id, value in (decoder or {}).items()]
        special += map(_special_token, config.get(_EXTRA) or [])
        if decoder is None and (folder / "added_tokens.json").is_file():
            names = {token.content for token in special}
            listed = read_json_object(folder / "added_tokens.json", ModelError).items()
            tokens = [_token({"content": name}, int(token_id), names) for name, token_id in listed]
        if _EXTRA not in config:  # the map's own list: transformers does not look there for what the others name
            special += map(_special_token, config.get(_ADDITIONAL) or [])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}: the tokenizer's added or special tokens are malformed: {error!r}") from error
    tokens.sort(key=lambda token: token.token_id or 0)
    with_ids = {token.content for token in tokens}
    tokens += [token for token in dict.fromkeys(special) if token.content not in with_ids]
    if read_tokenizer_class(config) == "Qwen2Tokenizer":  # adds its special tokens anew, by their names alone
        names = {token.content for token in special}
        tokens = [ConfiguredToken(each.content, each.token_id) if each.content in names else each for each in tokens]
    return [token for token in tokens if token.content]


def read_tokenizer_class(config: Mapping[str, Any]) -> str | None:
    """The class without "Fast" at its end; None where the configuration names none, or one for any tokenizer."""
    name = config.get("tokenizer_class")
    if not isinstance(name, str) or name in ("PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"):
        return None
    return name.removesuffix("Fast")


def _name_extra_tokens(config: dict[str, Any]) -> None:
    """Extra tokens that have names stand apart from those in a list."""
    if isinstance(config.get(_EXTRA), dict):
        config[_NAMED] = {**(config.get(_NAMED) or {}), **config.pop(_EXTRA)}


def _named_tokens(config: Mapping[str, Any]) -> dict[str, ConfiguredToken]:
    listed = {name: value for name, value in config.items() if name.endswith("_token")}
    listed |= config.get(_NAMED) or {}
    return {
        name: _special_token(value)
        for name, value in listed.items()
        if isinstance(value, str) or (isinstance(value, dict) and isinstance(value.get("content"), str))
    }


def _special_token(value: Any) -> ConfiguredToken:
    token = {"content": value} if isinstance(value, str) else value
    return _token(token, None, [token["content"]])


def _token(value: Mapping[str, Any], token_id: int | None, special_names: Collection[str]) -> ConfiguredToken:
    content = str(value["content"])
    special = bool(value.get("special", False)) or content in special_names
    flags = {name: bool(value.get(name, False)) for name in _FLAGS}
    return ConfiguredToken(content, token_id, special, bool(value.get("normalized", not special)), **flags)
