"""What networks call the modules that all of them have, and modules that some checkpoints keep as one."""

EMBEDDING, HEAD = "model.embed_tokens", "lm_head"
POSITIONS = "transformer.wpe.weight"  # GPT-2's

# Their parts lie one after the other in the outputs.
FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "W_pack": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("q_proj", "k_proj", "v_proj"),
    "query_key_value": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
    "dense_h_to_4h": ("gate_proj", "up_proj"),
}
