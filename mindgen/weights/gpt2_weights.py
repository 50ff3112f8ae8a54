"""GPT-2's checkpoints as its network wants them: linears (out, in) instead of Conv1D's (in, out), the fused c_attn as
q_proj, k_proj and v_proj, the embedding under the name that other models have for it, and nothing that is derived."""

import re
from dataclasses import replace

import numpy as np

from mindgen.weights.formats.safetensors_map import MappedTensor
from mindgen.weights.lora_names import EMBEDDING, FUSED

PREFIX = "transformer."
POSITIONS = f"{PREFIX}wpe.weight"
_MASK = re.compile(r".*\.attn\.(bias|masked_bias)")
_CONV1D = re.compile(r".*\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
_C_ATTN = re.compile(r"(.*\.attn)\.c_attn\.(weight|bias)")
_MINDFORMERS = re.compile(r"backbone\.(blocks\.(?P<layer>\d+)\.)?(?P<module>.+)\.(?P<kind>[^.]+)")
_FROM_MINDFORMERS = {
    "embedding.word_embedding": "wte",
    "embedding.position_embedding": "wpe",
    "layernorm": "ln_f",
    "layernorm1": "ln_1",
    "layernorm2": "ln_2",
    "attention": "attn",
    "attention.dense1": "attn.q_proj",
    "attention.dense2": "attn.k_proj",
    "attention.dense3": "attn.v_proj",
    "attention.projection": "attn.c_proj",
    "output.mapping": "mlp.c_fc",
    "output.projection": "mlp.c_proj",
    "embedding_table": "weight",
    "gamma": "weight",
    "beta": "bias",
    "masked_beta": "masked_bias",
}


def with_huggingface_names(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """Names as the whole model has them: with the prefix that is not there where the model was saved without its head,
    and instead of MindFormers' names."""
    return {_huggingface_name(name): tensor for name, tensor in tensors.items()}


def _huggingface_name(name: str) -> str:
    match = _MINDFORMERS.fullmatch(name)
    if match is not None:
        module, kind = (_FROM_MINDFORMERS.get(match[part], match[part]) for part in ("module", "kind"))
        name = f"{module}.{kind}" if match["layer"] is None else f"h.{match['layer']}.{module}.{kind}"
    return name if name.startswith((PREFIX, "lm_head.")) else PREFIX + name


def is_conv1d(name: str) -> bool:
    """Whether that parameter is a weight (in, out)."""
    return _CONV1D.fullmatch(name) is not None


def linear_weights(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """Views of the tensors, under the names of the network's layers, which slices for ranks have already."""
    if f"{EMBEDDING}.weight" in tensors:
        return tensors
    linears: dict[str, MappedTensor] = {}
    for name, tensor in with_huggingface_names(tensors).items():
        if _MASK.fullmatch(name):
            continue
        if is_conv1d(name):
            tensor = replace(tensor, data=tensor.data.T)
        if name == f"{PREFIX}wte.weight":
            name = f"{EMBEDDING}.weight"
        fused = _C_ATTN.fullmatch(name)
        if fused is None:
            linears[name] = tensor
            continue
        parts = FUSED["c_attn"]
        for part, rows in zip(parts, np.array_split(tensor.data, len(parts)), strict=True):
            linears[f"{fused[1]}.{part}.{fused[2]}"] = replace(tensor, data=rows)
    return linears
