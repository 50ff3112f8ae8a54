"""What a generation module is told, checked: by a YAML file of ChatLearn's, or by the same keys in a mapping."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from mindgen.compat.option_aliases import translate_options
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.limits import read_limits
from mindgen.errors import ConfigError, RequestError, warn
from mindgen.kernels.dtypes import DTYPE_CHOICES
from mindgen.loop.model_files import DEFAULT_MODEL
from mindgen.rlhf.module_keys import MODULE_KEYS
from mindgen.rlhf.module_yaml import read_module_yaml
from mindgen.sampling_params import SamplingParams
from mindgen.system.checks import require_text, shown, to_integer, to_truth
from mindgen.system.suggestion import closest

_KEYS = {key.name: key for key in MODULE_KEYS}
_EVALUATED = ("temperature", "top_k", "top_p", "presence_penalty", "frequency_penalty", "repetition_penalty")
_BUILT_IN = {"apply_replica_id_to_seed": True, "num_inference_per_prompt": 1, "seed": 0, "new_token_limit": False}
_TEXTS = ("tokenizer", "load", "adapter_id", "vllm_prompt_key", "vllm_input_ids_key", "prompt_key")
_COUNTS = ("max_new_tokens", "max_prompt_tokens_length", "max_response_tokens_length", "seq_length",
           "num_inference_per_prompt")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModuleSettings:
    """What a module needs to know.

    Attributes:
        given: ChatLearn's keys as they were given, defaults included.
        sampling: of a training request, by the names of SamplingParams, without length and seed.
        evaluation: the same of an evaluation.
        engine: the engine's limits.
        model, checkpoint, dtype: as LLM takes them.
    """

    given: Mapping[str, Any]
    sampling: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    engine: EngineConfig
    model: str
    checkpoint: str | None
    dtype: str

    @property
    def adapter_id(self) -> str | None:
        return self.given.get("adapter_id")

    def fit(self, token_ids: list[int], longest: int) -> tuple[list[int], int]:
        """The prompt as far as there is room for it, from its first token on, and how many tokens may follow.

        Args:
            longest: tokens of prompt and response together.

        Raises:
            RequestError: new_token_limit leaves no room for a prompt.
        """
        if not self.given["new_token_limit"]:
            token_ids = token_ids[: longest - 1]
            return token_ids, longest - len(token_ids)
        limit = self.given["max_new_tokens"]
        if limit >= longest:
            raise RequestError(f"max_new_tokens must be less than seq_length, which is {longest}, not {limit}")
        return token_ids[: longest - limit], limit

    def params(self, max_tokens: int, seed: int, is_eval: bool) -> SamplingParams:
        """Of one request."""
        options = dict(self.evaluation if is_eval else self.sampling)
        if not options.get("use_beam_search"):
            options |= {"logprobs": 1, "processed_logprobs": True, "seed": seed}
        return SamplingParams(**options, max_tokens=max_tokens)

    def seed(self, replica_id: int, number: int) -> int:
        """Of the module's request of that number: 64 bits of a digest, for those of requests may not be neighbours, as
        output i of a request has its seed + i."""
        replica = replica_id if self.given["apply_replica_id_to_seed"] else 0
        return int.from_bytes(
            blake2b(f"{self.given['seed']} {replica} {number}".encode(), digest_size=8).digest(), "big"
        )


def read_module_settings(source: str | Path | Mapping[str, Any] | None = None, **overrides: Any) -> ModuleSettings:
    """
    Args:
        source: a YAML file, or its keys in a mapping; None is neither.
        overrides: go before these.

    Raises:
        ConfigError: a key is unknown or refused, or a value none that it may have.
    """
    if source is not None and not isinstance(source, (str, Path, Mapping)):
        raise ConfigError(f"settings must be a YAML file or a mapping of its keys, not {shown(source)}")
    raw = {} if source is None else dict(source) if isinstance(source, Mapping) else read_module_yaml(Path(source))
    raw |= overrides
    given = {name: value for name, value in raw.items() if name in _KEYS and value is not None}
    _check_keys(raw)
    try:
        _check_values(given)
        given = _BUILT_IN | _with_lengths(given)
        sampling, evaluation = _sampling(given, False), _sampling(given, True)
    except RequestError as error:  # of the settings, not of a request
        raise ConfigError(str(error)) from error
    model = given.get("tokenizer") or given.get("load") or DEFAULT_MODEL
    load = given.get("load")
    checkpoint = load if load is not None and load != model else None
    return ModuleSettings(given, sampling, evaluation, _engine(given), model, checkpoint, _dtype(given))


def _check_keys(raw: Mapping[str, Any]) -> None:
    ignored: dict[str, list[str]] = {}
    for name, value in raw.items():
        if name not in _KEYS:
            raise ConfigError(f"unknown key {name!r}; did you mean {closest(str(name), _KEYS, 0)!r}?")
        key = _KEYS[name]
        if key.effect == "ignored":
            ignored.setdefault(key.note, []).append(name)
        if key.effect == "refused" and not any(value is each or value == each for each in key.allowed):
            allowed = " or ".join(str(each) for each in key.allowed)
            raise ConfigError(f"{name} must be {allowed}, not {shown(value)}: {key.note}")
    for note, names in ignored.items():
        warn(f"of no effect: {', '.join(names)}: {note}")


def _check_values(given: Mapping[str, Any]) -> None:
    for name in _TEXTS:
        if name in given:
            require_text(name, given[name])
    for name in _COUNTS:
        if name in given:
            to_integer(name, given[name], 1)
    for name in ("new_token_limit", "apply_replica_id_to_seed", "bf16", "fp16"):
        if name in given:
            to_truth(name, given[name])
    to_integer("seed", given.get("seed", 0), 0)


def _with_lengths(given: dict[str, Any]) -> dict[str, Any]:
    """Today's names for what there is to a length in the older ones."""
    prompt, response = given.get("max_prompt_tokens_length"), given.get("max_response_tokens_length")
    if response is not None:
        given = {"new_token_limit": True, "max_new_tokens": response} | given
        if prompt is not None:
            given = {"seq_length": prompt + response} | given
    if given.get("new_token_limit") and "max_new_tokens" not in given:
        raise RequestError("new_token_limit needs max_new_tokens, the limit")
    return given


def _sampling(given: Mapping[str, Any], is_eval: bool) -> dict[str, Any]:
    """Options of SamplingParams, checked."""
    options = {name: given[name] for name in given if _KEYS[name].effect == "sampling" and not name.startswith("eval_")}
    if is_eval:
        options = {name: value for name, value in options.items() if name not in _EVALUATED}
        options |= {name: given[f"eval_{name}"] for name in _EVALUATED if f"eval_{name}" in given}
    options.setdefault("skip_special_tokens", False)
    if options.get("use_beam_search"):
        options |= {"temperature": 0.0, "best_of": options.get("n", 1)}
        if options.pop("stop_token_list", None):
            warn("stop_token_list has no effect with use_beam_search")
    stop = options.pop("stop_token_list", None)
    if isinstance(stop, list):
        options["stop"] = stop
    elif stop is not None:
        options |= {"stop": list(translate_options({"stop_token_list": stop}).stop)}
    try:
        SamplingParams(**options)
    except RequestError as error:
        name = f"eval_{str(error).split(' ')[0]}"
        raise (RequestError(f"eval_{error}") if is_eval and name in given else error) from error
    return options


def _engine(given: Mapping[str, Any]) -> EngineConfig:
    limits: dict[str, Any] = {}
    for key in MODULE_KEYS:
        if key.effect == "engine" and key.name in given:
            limits.setdefault(key.target or key.name, given[key.name])
    if isinstance(limits.get("block_size"), str):
        raise ConfigError(f"block_size must be a number of tokens, like 16, not {limits['block_size']!r}")
    share = limits.get("memory_utilization")
    if share is not None and (isinstance(share, bool | str) or not 0 < share <= 1):
        raise ConfigError(f"gpu_memory_utilization must be above 0 and at most 1, not {share!r}")
    if "memory_utilization" in limits:
        limits["memory_utilization"] = float(limits["memory_utilization"])
    if isinstance(limits.get("max_num_batched_tokens"), int) and "max_num_seqs" not in limits:
        limits["max_num_seqs"] = max(min(EngineConfig().max_num_seqs, limits["max_num_batched_tokens"]), 1)
    return read_limits(limits)


def _dtype(given: Mapping[str, Any]) -> str:
    if given.get("bf16") and given.get("fp16"):
        raise ConfigError("bf16 and fp16 must not both be True: keep one of them")
    dtype = "bfloat16" if given.get("bf16") else "float16" if given.get("fp16") else "auto"
    dtype = given.get("params_dtype", dtype)
    if dtype not in DTYPE_CHOICES:
        raise ConfigError(f"params_dtype must be one of {', '.join(DTYPE_CHOICES)}, not {shown(dtype)}")
    return str(dtype)
