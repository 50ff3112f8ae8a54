"""ChatLearn's keys for a generation module, and what each means here.

Of https://github.com/alibaba/ChatLearn: chatlearn/models/vllm_module.py, its configurations of a policy that generates
(examples/megatron/configs/llama2), and today's RolloutConfig.
"""

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ModuleKey:
    """One key.

    Attributes:
        effect: "sampling" is an option of a request, "engine" a limit of the engine, "module" is the module's own;
            "ignored" makes no difference and is named once; "refused" may only have a value of `allowed`, which asks
            for nothing.
        target: what it is called where it goes; "" is the same.
        allowed: of a refused key.
        note: for people.
    """

    name: str
    effect: Literal["sampling", "engine", "module", "ignored", "refused"]
    target: str = ""
    allowed: tuple[Any, ...] = ()
    note: str = ""


def _ignored(note: str, names: str) -> list[ModuleKey]:
    """All these names, which spaces separate."""
    return [ModuleKey(name, "ignored", note=note) for name in names.split()]


MODULE_KEYS: tuple[ModuleKey, ...] = (
    ModuleKey("n", "sampling", note="responses to each prompt"),
    ModuleKey("ignore_eos", "sampling", note="go on past the end of sequence"),
    ModuleKey("top_p", "sampling"),
    ModuleKey("top_k", "sampling", note="0 or -1 is all tokens"),
    ModuleKey("temperature", "sampling", note="0 is greedy"),
    ModuleKey("use_beam_search", "sampling", note="with n beams; the responses have no log-probabilities then"),
    ModuleKey("presence_penalty", "sampling"),
    ModuleKey("frequency_penalty", "sampling"),
    ModuleKey("repetition_penalty", "sampling"),
    ModuleKey("eval_temperature", "sampling", note="when evaluating; 1 if not given"),
    ModuleKey("eval_top_k", "sampling", note="when evaluating; all tokens if not given"),
    ModuleKey("eval_top_p", "sampling", note="when evaluating; 1 if not given"),
    ModuleKey("eval_presence_penalty", "sampling", note="when evaluating; 0 if not given"),
    ModuleKey("eval_frequency_penalty", "sampling", note="when evaluating; 0 if not given"),
    ModuleKey("eval_repetition_penalty", "sampling", note="when evaluating; 1 if not given"),
    ModuleKey("stop_token_list", "sampling", note="texts that end a response, between semicolons, or a list"),
    ModuleKey("skip_special_tokens", "sampling", note="False if not given, as in ChatLearn"),
    ModuleKey("prompt_logprobs", "sampling", note="log-probabilities of the prompt too, of so many tokens each"),
    ModuleKey("new_token_limit", "module", note="True: max_new_tokens counts; False: seq_length alone"),
    ModuleKey("max_new_tokens", "module", note="tokens of a response, at most"),
    ModuleKey("max_response_tokens_length", "module", note="max_new_tokens, with new_token_limit"),
    ModuleKey("max_prompt_tokens_length", "module", note="tokens of a prompt, at most"),
    ModuleKey("seed", "module", note="0 if not given; every request of it draws its own numbers"),
    ModuleKey("apply_replica_id_to_seed", "module", note="True if not given: replicas draw different numbers"),
    ModuleKey("seq_length", "engine", "max_model_len", note="tokens of prompt and response together"),
    ModuleKey("max_num_batched_tokens", "engine", note="tokens in a step"),
    ModuleKey("max_paddings", "ignored", note="no row is ever padded"),
    ModuleKey("generation_batch_size", "engine", "max_num_seqs", note="sequences in a step"),
    ModuleKey("micro_batch_size", "engine", "max_num_seqs", note="the same; generation_batch_size goes before it"),
    ModuleKey("block_size", "engine", note="tokens, not bytes, in a block of the KV cache"),
    ModuleKey(
        "gpu_memory_utilization", "engine", "memory_utilization", note="share of free memory, above 0, at most 1"
    ),
    ModuleKey("swap_space", "engine", note="GiB of host memory"),
    ModuleKey("tensor_model_parallel_size", "engine", "tensor_parallel_size"),
    ModuleKey("pipeline_model_parallel_size", "engine", "pipeline_parallel_size"),
    ModuleKey("sliding_window", "refused", allowed=(None,), note="as in ChatLearn, there is none"),
    ModuleKey("quantization", "refused", allowed=(None,), note="the model is taken as its own files have it"),
    ModuleKey("loss_on_prompts", "refused", allowed=(None, False), note="set prompt_logprobs for the prompts' tokens"),
    ModuleKey("tokenizer", "module", note="the model's folder, or any name that LLM takes"),
    ModuleKey("load", "module", note="the model's folder where there is no tokenizer; else the folder of its weights"),
    ModuleKey("adapters", "module", note="of mindgen: as LLM takes them"),
    ModuleKey("adapter_id", "module", note="of mindgen: the adapter that is the policy; none is the base model"),
    ModuleKey("params_dtype", "module", note="bfloat16, float16, float32 or auto"),
    ModuleKey("bf16", "module", note="True is params_dtype bfloat16"),
    ModuleKey("fp16", "module", note="True is params_dtype float16"),
    ModuleKey("vllm_prompt_key", "module", note="where rows have their text; prompt if not given"),
    ModuleKey("vllm_input_ids_key", "module", note="where rows have their tokens; input_ids if not given"),
    ModuleKey("prompt_key", "module", note="where prompts that are rows have their text, for build_dataset"),
    ModuleKey("num_inference_per_prompt", "module", note="how often build_dataset repeats a training prompt"),
    ModuleKey("init_shuffle_prompts", "refused", allowed=(None, 0), note="shuffling is the data loader's"),
    *_ignored(
        "of the model: its own files say it",
        "num_layers hidden_size num_attention_heads ffn_hidden_size num_query_groups group_query_attention "
        "add_position_embedding use_rotary_position_embeddings untie_embeddings_and_output_weights tokenizer_type "
        "tokenizer_model normalization masked_softmax_fusion apply_query_key_layer_scaling add_bias_linear swiglu "
        "attention_softmax_in_fp32 max_position_embeddings make_vocab_size_divisible_by transformer_impl "
        "use_legacy_models load_iteration use_checkpoint_args exit_on_missing_checkpoint "
        "adaptive_parallel_strategy_on_checkpoint use_flash_attn "
        "tokenizer_mode tokenizer_revision revision trust_remote_code vocab_size",
    ),
    *_ignored(
        "of training",
        "trainer_engine use_ipo dpo_weight train_to_compare_num_responses fix_kl_coef numerical_stable build_path "
        "init_kl_coef target horizon gamma lam cliprange cliprange_value scale_reward cliprange_reward ngram_coef "
        "lm_coef math_coef raw_reward_coeff clipped_value_only finetune save_interval gradient_accumulation_fusion "
        "max_tokens_to_oom hysteresis do_math_eval log_entropy log_interval distributed_timeout_minutes no_load_optim "
        "no_load_rng no_load_args no_load_scheduler log_num_zeros_in_grad attention_dropout hidden_dropout "
        "retro_encoder_attention_dropout retro_encoder_hidden_dropout use_distributed_optimizer "
        "inference_batch_times_seqlen_threshold",
    ),
    *_ignored(
        "of another engine's inside",
        "num_scheduler_steps enforce_eager log_stats log_metrics max_context_len_to_capture distributed_backend",
    ),
)
