"""Checkpoints of the from-scratch GPT as its training saves them, and its forward pass in float64."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file

SIZES = {"vocab_size": 330, "max_position_embeddings": 24, "n_layers": 2, "n_heads": 4, "d_model": 32, "d_ff": 64}


def random_weights(seed: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    config = {**SIZES, **sizes}
    width, inner = config["d_model"], config["d_ff"]
    rng = np.random.default_rng(seed)
    shapes = {"token_embedding.weight": (config["vocab_size"], width)}
    shapes["position_embedding.weight"] = (config["max_position_embeddings"], width)
    for layer in range(config["n_layers"]):
        block = f"blocks.{layer}"
        for norm in ("ln1", "ln2"):
            shapes |= {f"{block}.{norm}.weight": (width,), f"{block}.{norm}.bias": (width,)}
        for module, rows, columns in (
            ("attn.qkv_proj", 3 * width, width), ("attn.out_proj", width, width),
            ("mlp.fc1", inner, width), ("mlp.fc2", width, inner),
        ):  # fmt: skip
            shapes |= {f"{block}.{module}.weight": (rows, columns), f"{block}.{module}.bias": (rows,)}
    shapes |= {"ln_f.weight": (width,), "ln_f.bias": (width,), "lm_head.weight": (config["vocab_size"], width)}
    return {
        name: (rng.standard_normal(shape) * 0.3 + (".ln" in f".{name}" and name.endswith("weight"))).astype(np.float32)
        for name, shape in shapes.items()
    }


def save(path: Path, weights: dict[str, np.ndarray], config: dict[str, Any] | None = None) -> Path:
    """As checkpoint.py does: the state dict, the optimizer's state, a step, and in newer files the configuration."""
    parameters = [torch.nn.Parameter(torch.from_numpy(values.copy())) for values in weights.values()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    tensors = {name: torch.from_numpy(values.copy()) for name, values in weights.items()}
    content: dict[str, Any] = {"model": tensors, "optimizer": optimizer.state_dict(), "step": 7}
    torch.save(content if config is None else {**content, "config": config}, path)
    return path


def logits(weights: dict[str, np.ndarray], token_ids: list[int], num_heads: int = 4, exact: bool = True) -> np.ndarray:
    """float64 (T, V), as model.py computes it."""
    w = {name: values.astype(np.float64) for name, values in weights.items()}
    T = len(token_ids)
    x = w["token_embedding.weight"][token_ids] + w["position_embedding.weight"][:T]
    layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    for layer in range(layers):
        block = f"blocks.{layer}"
        h = _linear(w, f"{block}.attn.qkv_proj", _norm(w, f"{block}.ln1", x))
        q, k, v = (part.reshape(T, num_heads, -1).swapaxes(0, 1) for part in np.split(h, 3, axis=1))
        scores = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[-1]) + np.triu(np.full((T, T), -np.inf), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (scores / scores.sum(-1, keepdims=True)) @ v
        x = x + _linear(w, f"{block}.attn.out_proj", attended.swapaxes(0, 1).reshape(T, -1))
        h = _linear(w, f"{block}.mlp.fc1", _norm(w, f"{block}.ln2", x))
        x = x + _linear(w, f"{block}.mlp.fc2", _gelu(h, exact))
    return _norm(w, "ln_f", x) @ w["lm_head.weight"].T


def generate(weights: dict[str, np.ndarray], token_ids: list[int], count: int, end: int | None, most: int) -> list[int]:
    """The greedy loop of generate.py, with its sliding window."""
    ids = token_ids if len(token_ids) < most else token_ids[-most + 1 :]
    for _ in range(count):
        ids = [*ids, int(logits(weights, ids)[-1].argmax())]
        if ids[-1] == end:
            break
        if len(ids) > most:
            ids = ids[-most:]
    return ids


def make_lora(weights: dict[str, np.ndarray], folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """peft's own file of an adapter for every linear of the layers; and the weights with it merged."""
    modules = [name.removesuffix(".weight") for name, each in weights.items() if each.ndim == 2 and "blocks" in name]

    class Blocks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for module in modules:
                parent: torch.nn.Module = self
                *path, last = module.split(".")
                for part in path:
                    if not hasattr(parent, part):
                        parent.add_module(part, torch.nn.Module())
                    parent = getattr(parent, part)
                parent.add_module(last, torch.nn.Linear(*weights[f"{module}.weight"].shape[::-1]))

    torch.manual_seed(0)
    targets = sorted({module.rpartition(".")[2] for module in modules})
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    injected = inject_adapter_in_model(config, Blocks())
    state = {f"base_model.model.{name}": each for name, each in get_peft_model_state_dict(injected).items()}
    folder.mkdir()
    save_file(state, folder / "adapter_model.safetensors")
    config.save_pretrained(folder)
    merged = dict(weights)
    for module in modules:
        a, b = (state[f"base_model.model.{module}.lora_{half}.weight"].numpy() for half in "AB")
        merged[f"{module}.weight"] = weights[f"{module}.weight"] + 2 * b @ a
    return folder, merged


def _linear(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _norm(w: dict[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def _gelu(x: np.ndarray, exact: bool) -> np.ndarray:
    if exact:
        return x / 2 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
