"""What config.json and generation_config.json may say, with types; what is absent gets the default of transformers."""

import reprlib
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from mindgen.errors import ModelError, warn
from mindgen.system.json_file import read_json_object

CONFIG_FILE = "config.json"
Record = TypeVar("Record", bound="FileRecord")


def _token_ids(value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    ids = value if isinstance(value, list) else [value]
    if not all(type(token_id) is int for token_id in ids):
        raise PydanticCustomError("token_ids", "Input should be an integer or a list of integers")
    return tuple(ids)


Size = Annotated[int, Field(gt=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
TokenIds = Annotated[tuple[int, ...] | None, BeforeValidator(_token_ids)]


class FileRecord(BaseModel):
    """Keys that are not mentioned mean nothing to mindgen."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, frozen=True, protected_namespaces=())


class NamesFile(FileRecord):
    """What tells which architecture a config.json is of, and whether its head is the embedding."""

    architectures: list[str] | None = None
    model_type: str | None = None
    tie_word_embeddings: bool | None = None


class GenerationFile(FileRecord):
    """generation_config.json."""

    eos_token_id: TokenIds = None
    bos_token_id: TokenIds = None
    pad_token_id: TokenIds = None


class ConfigFile(GenerationFile):
    """What all architectures have."""

    vocab_size: Size
    dtype: str | None = None
    torch_dtype: str | None = None


def read_record(record: type[Record], path: Path, raw: dict[str, Any], section: str = "") -> Record:
    """The file's content as a record.

    Args:
        section: the key of raw in the file, with a point behind it.

    Raises:
        ModelError: a key is missing, has a value of another type, or one that is not served; the message says which.
    """
    try:
        return record.model_validate(raw)
    except ValidationError as error:
        raise ModelError(f"{path}: {_describe(error.errors()[0], section)}") from error


def _describe(details: Any, section: str) -> str:
    key, value = f"{section}{details['loc'][0]}", reprlib.repr(details["input"])
    expected = details["msg"].removeprefix("Input should be ")
    if details["type"] == "missing":
        return f"{key} is missing, and there is no value to take instead"
    if details["type"] == "extra_forbidden":
        return f"{key} {value} is not known, and may change what the file means"
    if details["type"] == "literal_error":
        return f"{key} {value} is not served, only {expected}"
    return f"{key} must be {expected}, not {value}"


def read_ends(path: Path, file: ConfigFile) -> tuple[int, ...]:
    """The end tokens that the vocabulary has; what generation_config.json says goes before config.json."""
    _check_tokens(path, file, file.vocab_size)
    ends = file.eos_token_id
    generation_path = path.with_name("generation_config.json")
    if generation_path.is_file():
        generation = read_record(GenerationFile, generation_path, read_json_object(generation_path, ModelError))
        _check_tokens(generation_path, generation, file.vocab_size)
        ends = ends if generation.eos_token_id is None else generation.eos_token_id
    return tuple(token_id for token_id in ends or () if 0 <= token_id < file.vocab_size)


def _check_tokens(path: Path, file: GenerationFile, vocab_size: int) -> None:
    """Warns of tokens that no output can have."""
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        said = getattr(file, key) if key in file.model_fields_set else None
        beyond = [token_id for token_id in said or () if not 0 <= token_id < vocab_size]
        if beyond:
            shown = ", ".join(map(str, beyond))
            warn(f"{path}: {key} {shown} is outside the vocabulary of {vocab_size}, and is ignored")
