"""MindFormers' names of the modules and tensors of models like Llama: its older ones, as in its .ckpt files, and those
of its later networks (use_legacy: False), which are Megatron's."""

import re

from mindgen.errors import CheckpointError
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.tensor_names import EMBEDDING, HEAD

# Of a layer, and the embedding.
FROM_MINDFORMERS = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "tok_embeddings": "embed_tokens",
}
# MindFormers interleaves these by heads and ranks, or does not, which the tensors do not tell.
MINDFORMERS_FUSED = ("w_qkv", "w_gate_hidden")
_NORMS = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
_TABLES = {
    "model.tok_embeddings.embedding_weight": f"{EMBEDDING}.weight",
    "model.norm_out.weight": "model.norm.weight",
    "output.weight": f"{HEAD}.weight",
}
_LAYER = re.compile(r"(model\.layers\.\d+\.)(.+)\.(weight|bias)")
_INPUT_NORM = "input_layernorm"
# As convert_name of its models/qwen3/utils.py; what releases call otherwise stands there twice, the usual name first.
_MEGATRON = {
    "self_attention.linear_q": "self_attn.q_proj",
    "self_attention.linear_k": "self_attn.k_proj",
    "self_attention.linear_v": "self_attn.v_proj",
    "self_attention.linear_proj": "self_attn.o_proj",
    "self_attention.q_layernorm": "self_attn.q_norm",
    "self_attention.k_layernorm": "self_attn.k_norm",
    "mlp.gating": "mlp.gate_proj",
    "mlp.hidden": "mlp.up_proj",
    "mlp.linear_fc1": "mlp.up_proj",
    "mlp.linear_fc2": "mlp.down_proj",
    "pre_mlp_layernorm": "post_attention_layernorm",
}
_MEGATRON_TABLES = {
    "embedding.word_embeddings.weight": f"{EMBEDDING}.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": f"{HEAD}.weight",
}
_MEGATRON_LAYER = re.compile(r"decoder\.(layers\.\d+\.)(.+)\.(weight|bias)")


def from_mindformers(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """The tensors under Hugging Face's names; others keep theirs.

    Raises:
        CheckpointError: weights are fused still; or a tensor is there twice.
    """
    renamed: dict[str, MappedTensor] = {}
    for name, tensor in tensors.items():
        own = huggingface_name(name)
        if own in renamed:
            raise CheckpointError(f"{own} is there under two names, of which {name} is one")
        renamed[own] = tensor
    return renamed


def translate(tensors: dict[str, MappedTensor], _: ModelConfig) -> dict[str, MappedTensor]:
    """As from_mindformers, which is all that the networks of models like Llama need."""
    return from_mindformers(tensors)


def huggingface_name(name: str) -> str:
    megatron = _MEGATRON_LAYER.fullmatch(name)
    if megatron is not None:
        return f"model.{megatron[1]}{_MEGATRON.get(megatron[2], megatron[2])}.{megatron[3]}"
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return (_TABLES | _MEGATRON_TABLES).get(name, name)
    if layer[2].endswith(MINDFORMERS_FUSED):
        raise CheckpointError(
            f"{name} is one of MindFormers' fused weights (qkv_concat: True), which are taken apart in whole "
            "checkpoints only: join its ranks with `mindgen shard`, or convert it with qkv_concat: False"
        )
    module = FROM_MINDFORMERS.get(layer[2]) or _NORMS.get(layer[2], layer[2])
    return f"{layer[1]}{module}.{layer[3]}"


def to_mindformers(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """The same the other way round, with its older names; raises CheckpointError where it has none."""
    return {_mindformers_name(name): tensor for name, tensor in tensors.items()}


def to_megatron(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """The same with its later names, which are all that it has of newer models."""
    return {_megatron_name(name): tensor for name, tensor in tensors.items()}


def _mindformers_name(name: str) -> str:
    known = {ours: theirs for theirs, ours in _TABLES.items() if theirs != "output.weight"}
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return known.get(name, name)
    modules = {ours: theirs for theirs, ours in (FROM_MINDFORMERS | _NORMS).items()}
    if layer[2] not in modules:
        raise CheckpointError(f"MindFormers has no name for {name}")
    return f"{layer[1]}{modules[layer[2]]}.{layer[3]}"


def _megatron_name(name: str) -> str:
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return {ours: theirs for theirs, ours in _MEGATRON_TABLES.items()}.get(name, name)
    modules = {ours: theirs for theirs, ours in reversed(_MEGATRON.items())} | {_INPUT_NORM: _INPUT_NORM}
    if layer[2] not in modules:
        raise CheckpointError(f"MindFormers has no name for {name}")
    return f"{layer[1].replace('model.', 'decoder.', 1)}{modules[layer[2]]}.{layer[3]}"
