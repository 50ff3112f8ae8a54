"""What a batch job is to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.loop.model_files import DEFAULT_MODEL, AdapterPaths
from mindgen.sampling_params import SamplingParams

# How pydantic checks these classes where they are sections of a configuration file.
_NO_OTHER_KEYS = {"extra": "forbid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelChoice:
    """What answers: the arguments of LLM of the same names."""

    path: str = DEFAULT_MODEL
    adapters: AdapterPaths | None = None
    dtype: str = "auto"
    checkpoint: str | None = None
    on_missing_adapter: Literal["error", "base"] = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputColumns:
    """Where a row's request stands.

    Attributes:
        prompt: a text, a chat (a list of {"role": ..., "content": ...}), or token ids.
        adapter_id: of the row; null is the base model. None looks for none; a column that is not there is no error
            while it has its usual name.
        sampling: a struct of sampling options of the row, which go before the job's; likewise.
        seed: of the row, in place of the job's; likewise.
    """

    __pydantic_config__: ClassVar[Any] = _NO_OTHER_KEYS

    prompt: str = "prompt"
    adapter_id: str | None = "adapter_id"
    sampling: str | None = "sampling"
    seed: str | None = "seed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """How a row's prompt becomes tokens.

    Attributes:
        chat: texts are messages, for which the model has a chat template; chats always are.
        template_variables: what the chat template takes besides.
        max_length: of the prompt, in tokens; None is what the model's context leaves.
        truncation: what becomes of a longer one: an error of its row, or the left or the right end is cut off.
    """

    __pydantic_config__: ClassVar[Any] = _NO_OTHER_KEYS

    chat: bool = False
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    max_length: int | None = None
    truncation: Literal["error", "left", "right"] = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """What is written beside the input's columns.

    Attributes:
        form: "generated_text", a row for each sample; or "responses", a row for each prompt with lists of its samples.
        prefix: of the names of all columns that are added, where the input has some of these names itself.
        token_ids: write the tokens of each sample.
        logprobs: write the log-probability of each of them.
        overwrite: replace an output that is there.
    """

    __pydantic_config__: ClassVar[Any] = _NO_OTHER_KEYS

    form: Literal["generated_text", "responses"] = "generated_text"
    prefix: str = ""
    token_ids: bool = False
    logprobs: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """A batch job.

    Attributes:
        input: a file (.parquet, .jsonl, .csv, .txt), a folder of such files, a pattern like "data/*.parquet", or
            several of these, as texts or paths; or a pandas frame, a datasets.Dataset, an Arrow table. A row for each
            prompt.
        output: the file to write; its ending says what kind.
        adapter_id: of all rows, where the input has no column for it.
        n_samples: answers to each prompt.
        seed: of the job, from which each sample has its own.
        sampling: of all rows; its n is 1, and its seed None.
        batch_size: rows in work at once; None is twice what the engine computes at once.
        part_rows: rows whose answers are kept in one file of the job's folder until all are there.
        fail_fast: the first row that fails ends the job.
        retry_failed: generate the rows again that have failed in an earlier run of this job, and only those.
        runner: "local", or "ray" for replicas on all machines of a Ray cluster.

    Raises:
        ConfigError: a value is out of its range.
    """

    input: str | Sequence[str] | Any
    output: str
    model: ModelChoice = ModelChoice()
    columns: InputColumns = InputColumns()
    prompts: PromptOptions = PromptOptions()
    outputs: OutputOptions = OutputOptions()
    adapter_id: str | None = None
    n_samples: int = 1
    seed: int = 0
    sampling: SamplingParams = field(default_factory=SamplingParams)
    engine: EngineConfig = field(default_factory=EngineConfig)
    batch_size: int | None = None
    part_rows: int = 1000
    fail_fast: bool = False
    retry_failed: bool = False
    runner: Literal["local", "ray"] = "local"

    def __post_init__(self) -> None:
        for name in ("n_samples", "batch_size", "part_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")
        if not 0 <= self.seed < 2**64:
            raise ConfigError(f"seed must be 0 to 2^64 - 1, not {self.seed}")
        if self.sampling.n != 1 or self.sampling.seed is not None:
            raise ConfigError("n_samples says how many answers a prompt has, and seed from what seed: leave out n and "
                              "seed of sampling")  # fmt: skip
        if self.sampling.deadline_seconds is not None:
            raise ConfigError("deadline_seconds has no place in a job: its answers would depend on how fast it runs")
        if self.sampling.is_greedy and self.n_samples > 1 and not self.sampling.use_beam_search:
            raise ConfigError(
                f"n_samples must be 1 at temperature 0, where all answers are the same, not {self.n_samples}"
            )
