"""The policy as its trainer has it: a model like Llama in float32, differentiable, with LoRA as all that is trained."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, ops
from safetensors.numpy import save_file

from mindgen.adapters.base_mark import mark_base
from mindgen.adapters.formats.lora_config import CONFIG_FILE
from mindgen.errors import ConfigError, ModelError
from mindgen.kernels import dtypes
from mindgen.layers.rotary import rotary_tables
from mindgen.loop.model_files import ModelFiles
from mindgen.weights.architecture import read_model_config
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_names import network_weights

# x W^T, by an op that has no need of W^T in memory.
_times_transposed, _batched_times_transposed = ops.MatMul(transpose_b=True), ops.BatchMatMul(transpose_b=True)
_times, _batched_times = ops.MatMul(), ops.BatchMatMul()


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """What adapter_config.json says of the policy: y += alpha / rank * (x A^T) B^T for each of the target modules.

    Attributes:
        last_layers: so many have LoRA; gradients go no further down.

    Raises:
        ConfigError: a number is below 1.
    """

    rank: int = 8
    alpha: int = 16
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj")
    last_layers: int = 10

    def __post_init__(self) -> None:
        for name in ("rank", "alpha", "last_layers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def scaling(self) -> float:
        return self.alpha / self.rank

    def layers(self, num_layers: int) -> list[int]:
        return list(range(max(0, num_layers - self.last_layers), num_layers))

    def adapter_config(self, model: str, num_layers: int) -> dict[str, object]:
        """The content of adapter_config.json, as PEFT reads it."""
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": model,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": list(self.target_modules),
            "layers_to_transform": self.layers(num_layers),
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
        }


class Policy:
    """The model with its adapter, which changes nothing at first: all B are 0, and A is drawn as PEFT draws it.

    Args:
        model: as LLM takes it.
        dtype: in which LLM serves it; the frozen weights are rounded as they are there.
        num_positions: of prompt and answer together, at most.
        seed: of the A.

    Attributes:
        parameters: A (rank, in) and B (out, rank) of every target module.

    Raises:
        ModelError: it is not like Llama, or has no such modules.
    """

    def __init__(self, model: str, dtype: str, settings: LoraSettings, num_positions: int, seed: int) -> None:
        files = ModelFiles.of(model, None, None)
        self._model, self._folder, self._settings = model, files.folder, settings
        self._config = config = read_model_config(files.folder)
        _require_like_llama(model, config)
        tensors = network_weights(files.folder, files.weights(1).map(0))
        arrays = {name: dtypes.to_float32(each.as_dtype(dtype), dtype) for name, each in tensors.items()}
        self._weights = {name: Tensor(array) for name, array in arrays.items()}
        self._head = self._weights.get("lm_head.weight", self._weights["model.embed_tokens.weight"])
        assert config.rope is not None
        cos, sin = rotary_tables(config.rope, config.head_size, num_positions)
        self._cos, self._sin, self._swap = Tensor(cos), Tensor(sin), Tensor(_swap_of_halves(config.head_size))
        chosen = tuple(f"model.layers.{layer}." for layer in settings.layers(config.num_layers))
        targets = {
            name.removesuffix(".weight"): array.shape
            for name, array in sorted(arrays.items())
            if name.startswith(chosen) and name.endswith(".weight") and name.split(".")[-2] in settings.target_modules
        }
        self._lora = _initial_lora(targets, settings.rank, seed)
        if not self._lora:
            raise ModelError(f"{model} has no modules {', '.join(settings.target_modules)}")
        self.parameters = ParameterTuple([matrix for pair in self._lora.values() for matrix in pair])

    def tensors(self) -> dict[str, np.ndarray]:
        """The adapter as it is now, under PEFT's names; copies."""
        return {each.name: np.array(each.asnumpy()) for each in self.parameters}

    def adapter_config(self) -> dict[str, object]:
        """The content of its adapter_config.json."""
        return self._settings.adapter_config(self._model, self._config.num_layers)

    def save(self, folder: Path) -> None:
        """Writes the adapter as PEFT does, with a mark of the model that it is for."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(self.tensors(), folder / "adapter_model.safetensors")
        text = json.dumps(self.adapter_config(), indent=2)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
        mark_base(folder, self._model, self._folder)

    def logprobs(self, group: tuple[Tensor, ...]) -> Tensor:
        """The log-probability (N,) of each target of a PackedGroup; logits are computed nowhere else."""
        tokens, positions, mask, places, targets = group
        # Whole tables and masks, once for all layers: ops that broadcast take several times as long.
        heads = self._config.num_heads
        cos, sin = (
            ops.tile(ops.gather(self._cos, positions, 0), (1, heads)),
            ops.tile(ops.gather(self._sin, positions, 0), (1, heads)),
        )  # (T, heads*D)
        mask = ops.tile(mask, (heads, 1))  # (heads*T, T)
        x = ops.gather(self._weights["model.embed_tokens.weight"], tokens, 0)  # (T, H)
        for layer in range(self._config.num_layers):
            prefix = f"model.layers.{layer}"
            normed = self._norm(x, f"{prefix}.input_layernorm")
            x = x + self._attention(normed, f"{prefix}.self_attn", (cos, sin), mask)
            x = x + self._mlp(self._norm(x, f"{prefix}.post_attention_layernorm"), f"{prefix}.mlp")
        x = self._norm(ops.gather(x, places, 0), "model.norm")  # (N, H)
        logprobs = ops.log_softmax(_times_transposed(x, self._head), -1)  # (N, V)
        return ops.gather_elements(logprobs, 1, targets.reshape(-1, 1)).reshape(-1)  # (N, 1) to (N,)

    def _attention(self, x: Tensor, module: str, rotation: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """(T, H) to the same. The query heads that share keys stand one below the other beside them."""
        num_tokens, _ = x.shape
        heads, kv_heads, size = self._config.num_heads, self._config.num_kv_heads, self._config.head_size
        group = heads // kv_heads
        queries = self._rotate(self._linear(x, f"{module}.q_proj") / math.sqrt(size), rotation)  # (T, heads*D)
        keys = self._rotate(self._linear(x, f"{module}.k_proj"), rotation)  # (T, kv_heads*D)
        values = self._linear(x, f"{module}.v_proj")
        # (T, heads*D) to (heads, T, D), of which a group's are joined
        queries = queries.reshape(num_tokens, heads, size).swapaxes(0, 1).reshape(kv_heads, group * num_tokens, size)
        keys = keys.reshape(num_tokens, kv_heads, size).swapaxes(0, 1)  # (kv_heads, T, D)
        values = values.reshape(num_tokens, kv_heads, size).swapaxes(0, 1)
        scores = _batched_times_transposed(queries, keys).reshape(heads * num_tokens, num_tokens)
        weights = ops.softmax(scores + mask, -1).reshape(kv_heads, group * num_tokens, num_tokens)
        mixed = _batched_times(weights, values).reshape(heads, num_tokens, size)
        # (heads, T, D) to (T, heads*D)
        return self._linear(mixed.swapaxes(0, 1).reshape(num_tokens, heads * size), f"{module}.o_proj")

    def _rotate(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Rotary positions (arXiv:2104.09864) of (T, heads*D), the halves of a head as pairs."""
        width = x.shape[1]
        cos, sin = rotation[0][:, :width], rotation[1][:, :width]
        swapped = _times(x.reshape(-1, self._config.head_size), self._swap).reshape(x.shape)  # (T*heads, D) on the way
        return x * cos + swapped * sin

    def _mlp(self, x: Tensor, module: str) -> Tensor:
        """down(silu(gate x) * up x), (T, H) to the same."""
        gate, up = self._linear(x, f"{module}.gate_proj"), self._linear(x, f"{module}.up_proj")
        return self._linear(gate * ops.sigmoid(gate) * up, f"{module}.down_proj")

    def _linear(self, x: Tensor, module: str) -> Tensor:
        """(T, in) to (T, out)"""
        y = _times_transposed(x, self._weights[f"{module}.weight"])
        if f"{module}.bias" in self._weights:
            y = y + self._weights[f"{module}.bias"]
        if module in self._lora:
            a, b = self._lora[module]
            y = y + _times_transposed(_times_transposed(x, a), b) * self._settings.scaling
        return y

    def _norm(self, x: Tensor, module: str) -> Tensor:
        """RMSNorm (arXiv:1910.07467) of (T, H)."""
        scale = ops.rsqrt(x.square().mean(-1, keep_dims=True) + self._config.norm_epsilon)
        return x * scale * self._weights[f"{module}.weight"]


def _swap_of_halves(size: int) -> np.ndarray:
    """The matrix (D, D) that makes (-b, a) of the halves (a, b) of a head; slices would have slow gradients."""
    swap = np.roll(np.eye(size, dtype=np.float32), size // 2, 1)
    swap[size // 2 :] *= -1
    return swap


def _initial_lora(targets: dict[str, tuple[int, ...]], rank: int, seed: int) -> dict[str, tuple[Parameter, Parameter]]:
    """A and B for modules of these shapes (out, in): A uniform within 1 / sqrt(in), as PEFT has it, and B 0."""
    random = np.random.default_rng(seed)
    lora = {}
    for module, (outputs, inputs) in targets.items():
        a = random.uniform(-1, 1, (rank, inputs)).astype(np.float32) / np.float32(math.sqrt(inputs))
        b = np.zeros((outputs, rank), np.float32)
        name = f"base_model.model.{module}"
        lora[module] = Parameter(Tensor(a), f"{name}.lora_A.weight"), Parameter(Tensor(b), f"{name}.lora_B.weight")
    return lora


def _require_like_llama(model: str, config: ModelConfig) -> None:
    """Raises ModelError where the arithmetic above is not the model's."""
    rope = config.rope
    if rope is None or rope.interleaved or rope.rotated_share != 1 or config.query_key_norm or not config.gated_mlp:
        raise ModelError(f"{model} is a {config.architecture}: this example trains models like Llama and Qwen2 only")
