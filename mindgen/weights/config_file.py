"""What config.json and generation_config.json may say, with types; what is absent gets the default of transformers."""

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from mindgen.errors import ModelError
from mindgen.system.json_file import read_json_object

GPT2 = "GPT2LMHeadModel"
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

    @property
    def is_gpt2(self) -> bool:
        return self.architectures[0] == GPT2 if self.architectures else self.model_type == "gpt2"

    @property
    def ties_head(self) -> bool:
        return self.is_gpt2 if self.tie_word_embeddings is None else self.tie_word_embeddings


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


class RopeFile(FileRecord):
    """The rope settings of a kind that needs no others."""

    rope_theta: Positive


class LinearRopeFile(RopeFile):
    factor: Positive


class Llama3RopeFile(LinearRopeFile):
    low_freq_factor: Positive
    high_freq_factor: Positive
    original_max_position_embeddings: Size


class LlamaFile(ConfigFile):
    """config.json of a LlamaForCausalLM."""

    eos_token_id: TokenIds = (2,)
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    max_position_embeddings: Size
    hidden_act: Literal["silu", "swish"] = "silu"
    rms_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6  # what MindSpore's RmsNorm takes
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope_theta: Positive = 10000.0
    rope_scaling: dict[str, Any] | None = None
    rope_parameters: dict[str, Any] | None = None
    original_max_position_embeddings: Size | None = None
    partial_rotary_factor: Positive | None = None
    use_sliding_window: bool = True
    sliding_window: Size | None = None
    max_window_layers: int = 0
    layer_types: list[str] | None = None


class Qwen2File(LlamaFile):
    """config.json of a Qwen2ForCausalLM."""

    eos_token_id: TokenIds = None
    num_key_value_heads: Size | None = 32
    use_sliding_window: bool = False
    sliding_window: Size | None = 4096
    max_window_layers: int = 28


class Qwen3File(Qwen2File):
    """config.json of a Qwen3ForCausalLM."""

    head_dim: Size = 128  # type: ignore[assignment]


class Gpt2File(ConfigFile):
    """config.json of a GPT2LMHeadModel; of sizes that stand there under both of their names, the general one counts."""

    eos_token_id: TokenIds = (50256,)
    n_embd: Size = Field(validation_alias=AliasChoices("hidden_size", "n_embd"))
    n_layer: Size = Field(validation_alias=AliasChoices("num_hidden_layers", "n_layer"))
    n_head: Size = Field(validation_alias=AliasChoices("num_attention_heads", "n_head"))
    n_positions: Size = Field(validation_alias=AliasChoices("max_position_embeddings", "n_positions"))
    n_inner: Size | None = None
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh"] = "gelu_new"
    layer_norm_epsilon: Annotated[float, Field(ge=0)] = 1e-5
    tie_word_embeddings: bool = True
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False


def read_names(folder: Path) -> NamesFile:
    """Of a model that may be of any architecture.

    Raises:
        ModelError: the folder has no readable config.json.
    """
    path = folder / CONFIG_FILE
    return read_record(NamesFile, path, read_json_object(path, ModelError))


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
    if details["type"] == "literal_error":
        return f"{key} {value} is not served, only {expected}"
    return f"{key} must be {expected}, not {value}"
