"""ChatGLM2, ChatGLM3 and GLM-4 as THUDM published them, in its files or in MindFormers': GlmForCausalLM under other
names."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from mindgen.errors import CheckpointError
from mindgen.weights.architecture import Architecture
from mindgen.weights.architectures.glm import like_glm, without_fused
from mindgen.weights.architectures.llama import linears
from mindgen.weights.cache_layout import keys_and_values
from mindgen.weights.config_file import FileRecord, Positive, Size, TokenIds, read_record
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.module_names import ModuleNames
from mindgen.weights.network_shapes import llama_shapes
from mindgen.weights.tensor_names import EMBEDDING, FUSED, HEAD

_WORD_EMBEDDINGS = "transformer.embedding.word_embeddings.weight"
# MindFormers' names of the same, the newer first.
_MINDFORMERS_TABLES = ("transformer.embedding.embedding_weight", "transformer.embedding.embedding_table")
_NAMES = ModuleNames(
    layers="transformer.encoder.layers.",
    own_layers="model.layers.",
    tables={
        "transformer.embedding.word_embeddings": EMBEDDING,
        "transformer.encoder.final_layernorm": "model.norm",
        "transformer.output_layer": HEAD,
    },
    modules={
        "self_attention.dense": "self_attn.o_proj",
        "self_attention.query_key_value": "self_attn.query_key_value",
        "mlp.dense_4h_to_h": "mlp.down_proj",
    },
    # MindFormers' parts of what is fused otherwise.
    also_read={
        "self_attention.wq": "self_attn.q_proj",
        "self_attention.wk": "self_attn.k_proj",
        "self_attention.wv": "self_attn.v_proj",
        "mlp.dense_left": "mlp.gate_proj",
        "mlp.dense_right": "mlp.up_proj",
    },
    also_written={f"self_attn.{part}": f"self_attention.{part}" for part in FUSED["query_key_value"]},
)
_BASE = 10000.0  # of the rotary frequencies, which rope_ratio multiplies


class ChatGlmFile(FileRecord):
    """config.json of THUDM's models; what is absent gets the default of its ChatGLMConfig.

    Attributes:
        use_rearrange_rope: of MindFormers: rows of queries and keys lie half a head apart in the checkpoint.
    """

    padded_vocab_size: Size
    hidden_size: Size
    ffn_hidden_size: Size
    num_layers: Size
    num_attention_heads: Size
    kv_channels: Size
    seq_length: Size
    layernorm_epsilon: float
    multi_query_attention: bool = False
    multi_query_group_num: Size = 1
    add_qkv_bias: bool = False
    rope_ratio: Positive = 1.0
    eos_token_id: TokenIds = (2,)
    torch_dtype: str | None = None
    use_rearrange_rope: bool = False
    tie_word_embeddings: Literal[False] = False
    add_bias_linear: Literal[False] = False
    apply_residual_connection_post_layernorm: Literal[False] = False
    rmsnorm: Literal[True] = True
    post_layer_norm: Literal[True] = True
    original_rope: Literal[True] = True
    quantization_bit: Literal[0] = 0
    pre_seq_len: Literal[None] = None


def _read_config(path: Path, raw: dict[str, Any]) -> ModelConfig:
    file = read_record(ChatGlmFile, path, raw)
    heads = file.num_attention_heads
    words = {
        "vocab_size": file.padded_vocab_size,
        "hidden_size": file.hidden_size,
        "intermediate_size": file.ffn_hidden_size,
        "num_hidden_layers": file.num_layers,
        "num_attention_heads": heads,
        "num_key_value_heads": file.multi_query_group_num if file.multi_query_attention else heads,
        "head_dim": file.kv_channels,
        "max_position_embeddings": file.seq_length,
        "rms_norm_eps": file.layernorm_epsilon,
        "rope_theta": _BASE * file.rope_ratio,
        "attention_bias": file.add_qkv_bias,
        "eos_token_id": None if file.eos_token_id is None else list(file.eos_token_id),
        "torch_dtype": file.torch_dtype,
    }
    config = like_glm(path, words, ARCHITECTURE.name)
    assert config.rope is not None
    return replace(config, rope=replace(config.rope, interleaved=not file.use_rearrange_rope))


def _with_original_names(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """THUDM's names, which MindFormers keeps but for the embedding; what it has taken apart stays so."""
    return {_WORD_EMBEDDINGS if name in _MINDFORMERS_TABLES else name: tensor for name, tensor in tensors.items()}


def _translate(tensors: dict[str, MappedTensor], config: ModelConfig) -> dict[str, MappedTensor]:
    """Views under the names of the network's layers.

    Raises:
        CheckpointError: a tensor is there twice, or of another size.
    """
    renamed: dict[str, MappedTensor] = {}
    for name, tensor in _with_original_names(tensors).items():
        module, _, kind = name.rpartition(".")
        own = f"{_NAMES.own(module)}.{kind}"
        if own in renamed:
            raise CheckpointError(f"{own} is there under two names, of which {name} is one")
        if name != "transformer.rotary_pos_emb.inv_freq":  # which the network derives
            renamed[own] = tensor
    return without_fused(renamed, config)


ARCHITECTURE = Architecture(
    name="ChatGLMModel",
    model_type="chatglm",
    network="llama:LlamaForCausalLM",
    read_config=_read_config,
    cache_layout=keys_and_values,
    linears=linears,
    tensor_shapes=llama_shapes,
    other_names=("ChatGLMForConditionalGeneration", "ChatGLM2ForConditionalGeneration"),
    with_own_names=_with_original_names,
    translate=_translate,
    own_module=_NAMES.own,
    their_module=_NAMES.their,
)
