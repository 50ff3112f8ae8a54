"""veRL's keys for generation, and what each means here.

Of https://github.com/volcengine/verl: verl/trainer/config/generation.yaml and ppo_trainer.yaml with its rollout, model
and data sections, which main_generation_server reads below actor_rollout_ref.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["count", "integer", "number", "number or size", "truth", "text", "texts", "mapping", "any"]


@dataclass(frozen=True, slots=True)
class VerlKey:
    """One key.

    Attributes:
        name: dotted; with ".*" at its end a whole section. rollout and model are also those below actor_rollout_ref.
        effect: "honoured" sets `target`; "ignored" makes no difference and is reported; "refused" is accepted with a
            value of `allowed` only, which asks for nothing.
        target: the key of ours that it sets.
        kind: what its value must be, if it is not null.
        allowed: all values that it may have, if not all of its kind.
        meaning: of the values of `allowed`, where ours are others.
        yields: another key with the same target goes before it.
        note: for people.
    """

    name: str
    effect: Literal["honoured", "ignored", "refused"]
    target: str = ""
    kind: Kind = "any"
    allowed: tuple[Any, ...] | None = None
    meaning: Mapping[Any, Any] | None = None
    yields: bool = False
    note: str = ""


def _honoured(name: str, target: str, kind: Kind, note: str = "", **details: Any) -> VerlKey:
    return VerlKey(name, "honoured", target, kind, note=note, **details)


def _ignored(note: str, section: str, names: str, **details: Any) -> list[VerlKey]:
    """All these names, which spaces separate, of a section."""
    prefix = f"{section}." if section else ""
    return [VerlKey(prefix + name, "ignored", note=note, **details) for name in names.split()]


def _refused(name: str, note: str, *allowed: Any) -> VerlKey:
    return VerlKey(name, "refused", kind="mapping" if {} in allowed else "any", allowed=(None, *allowed), note=note)


_DEVICES = {"cuda": "auto", "gpu": "auto", "npu": "Ascend", "ascend": "Ascend", "cpu": "CPU"}
_DTYPES = {
    "bfloat16": "bfloat16", "bf16": "bfloat16", "float16": "float16", "fp16": "float16", "half": "float16",
    "float32": "float32", "fp32": "float32", "float": "float32", "auto": "auto",
}  # fmt: skip
_TRAINING = "of training"
_NO_CODE = "no code of a model's folder is ever run"
_OWN_MODEL = "the model is taken as its own files have it"

VERL_KEYS: tuple[VerlKey, ...] = (
    _honoured("trainer.nnodes", "devices.nnodes", "count", "machines; Ray's, without engine.master_addr or a launcher"),
    _honoured("trainer.n_gpus_per_node", "devices.per_node", "count", "devices, or processes on a CPU; see below"),
    _honoured("trainer.n_npus_per_node", "devices.per_node", "count", "another name of n_gpus_per_node"),
    _honoured(
        "trainer.device",
        "engine.device_target",
        "text",
        "npu is Ascend; cuda is what there is, an NPU or the CPU",
        allowed=tuple(_DEVICES),
        meaning=_DEVICES,
    ),
    *_ignored(
        _TRAINING,
        "trainer",
        "balance_batch total_epochs total_training_steps project_name experiment_name logger log_val_generations "
        "rollout_data_dir validation_data_dir save_freq esi_redundant_time resume_mode resume_from_path "
        "val_before_train val_only test_freq critic_warmup default_hdfs_dir default_local_dir "
        "del_local_ckpt_after_load max_actor_ckpt_to_keep max_critic_ckpt_to_keep ray_wait_register_center_timeout "
        "use_legacy_worker_impl",
    ),
    _honoured("data.path", "input", "texts", "a file, a folder, a pattern, or a list of these"),
    _honoured("data.train_files", "input", "texts", "of main_generation_server"),
    _honoured("data.output_path", "output", "text"),
    _honoured("data.prompt_key", "columns.prompt", "text"),
    _honoured("data.n_samples", "n_samples", "count"),
    _honoured("data.batch_size", "batch_size", "count", "rows in work at once"),
    _honoured("data.apply_chat_template_kwargs", "prompts.template_variables", "mapping"),
    _honoured(
        "data.truncation",
        "prompts.truncation",
        "text",
        "of a longer prompt: error (of its row), left or right",
        allowed=("error", "left", "right"),
    ),
    _honoured(
        "data.max_prompt_length", "prompts.max_length", "count", "rollout.prompt_length goes before it", yields=True
    ),
    _honoured(
        "data.max_response_length",
        "generation.max_tokens",
        "count",
        "rollout.response_length goes before it",
        yields=True,
    ),
    _refused("data.tokenizer", _OWN_MODEL),
    _refused("data.custom_cls.path", "no code of others is run"),
    *_ignored(_NO_CODE, "data", "trust_remote_code", kind="truth"),
    *_ignored(
        _TRAINING,
        "data",
        "val_files train_batch_size val_batch_size train_max_samples val_max_samples reward_fn_key shuffle seed "
        "validation_shuffle dataloader_num_workers return_raw_input_ids return_raw_chat return_full_prompt "
        "return_multi_modal_inputs filter_overlong_prompts filter_overlong_prompts_workers image_key video_key "
        "image_patch_size tool_config_path use_shm custom_cls.* sampler.* datagen.* databuffer.*",
    ),
    _honoured("model.path", "model.path", "text", "a folder, a file, a pulled or a hub's model, or demo"),
    _honoured("model.lora_adapter_path", "lora_adapter_path", "text", "the adapter that answers all rows"),
    _refused("model.external_lib", "no code of others is run"),
    _refused("model.tokenizer_path", _OWN_MODEL),
    _refused("model.hf_config_path", _OWN_MODEL),
    _refused("model.override_config", _OWN_MODEL, {}),
    _refused("model.custom_chat_template", _OWN_MODEL),
    *_ignored(_NO_CODE, "model", "trust_remote_code", kind="truth"),
    *_ignored(
        _TRAINING,
        "model",
        "_target_ use_shm enable_gradient_checkpointing enable_activation_offload use_remove_padding lora_rank "
        "lora_alpha lora.* target_modules target_parameters exclude_modules use_liger use_fused_kernels "
        "fused_kernel_options.* tiled_mlp.* mtp.*",
    ),
    *_ignored("mindgen itself generates", "rollout", "name", allowed=("vllm", "hf", "sglang", "trtllm", "vllm_omni")),
    *_ignored("no row waits for others", "rollout", "mode", allowed=("sync", "async")),
    _honoured("rollout.temperature", "generation.temperature", "number", "0 is greedy"),
    _honoured("rollout.top_k", "generation.top_k", "integer", "0, -1 and null are off"),
    _honoured("rollout.top_p", "generation.top_p", "number"),
    _honoured("rollout.repetition_penalty", "generation.repetition_penalty", "number"),
    _honoured("rollout.do_sample", "generation.do_sample", "truth", "False is greedy, whatever the temperature"),
    _honoured("rollout.ignore_eos", "generation.ignore_eos", "truth"),
    _honoured(
        "rollout.prompt_length", "prompts.max_length", "count", "what is longer is an error of its row; see below"
    ),
    _honoured("rollout.response_length", "generation.max_tokens", "count"),
    _honoured("rollout.seed", "seed", "integer"),
    _honoured("rollout.calculate_log_probs", "outputs.logprobs", "truth"),
    _honoured("rollout.dtype", "model.dtype", "text", allowed=tuple(_DTYPES), meaning=_DTYPES),
    _honoured("rollout.tensor_model_parallel_size", "engine.tensor_parallel_size", "count"),
    _honoured("rollout.pipeline_model_parallel_size", "engine.pipeline_parallel_size", "count"),
    _honoured("rollout.data_parallel_size", "devices.replicas", "count", "the number of replicas is a multiple of it"),
    _honoured("rollout.gpu_memory_utilization", "engine.memory_utilization", "number or size"),
    _honoured("rollout.max_num_batched_tokens", "engine.max_num_batched_tokens", "count"),
    _honoured("rollout.max_num_seqs", "engine.max_num_seqs", "count"),
    _honoured("rollout.max_model_len", "engine.max_model_len", "count"),
    _honoured("rollout.enable_chunked_prefill", "engine.enable_chunked_prefill", "truth"),
    _honoured("rollout.enable_prefix_caching", "engine.enable_prefix_caching", "truth"),
    _refused(
        "rollout.load_format", "dummy stands for random weights, and there are none here", "auto", "safetensors", "hf"
    ),
    _refused("rollout.quantization", _OWN_MODEL),
    _refused("rollout.use_fire_sampling", "another way to sample", False),
    _refused("rollout.multi_turn.enable", "there are no tools that answer", False),
    _refused("rollout.skip_rollout", "the job's folder keeps what was generated", False),
    _honoured("actor_rollout_ref.rollout.n", "n_samples", "count", "of main_generation_server"),
    *_ignored("data.n_samples counts", "rollout", "n"),
    *_ignored("graphs are always compiled", "rollout", "enforce_eager cudagraph_capture_sizes"),
    *_ignored("results never depend on what else is in the batch", "rollout", "full_determinism"),
    *_ignored(
        _TRAINING,
        "rollout",
        "_target_ free_cache_engine log_prob_micro_batch_size log_prob_micro_batch_size_per_gpu "
        "log_prob_use_dynamic_bsz log_prob_max_token_len_per_gpu over_sample_rate multi_stage_wake_up "
        "update_weights_bucket_megabytes checkpoint_engine.* layered_summon val_kwargs.* multi_turn.* agent.* "
        "skip_dump_dir skip.*",
    ),
    *_ignored(
        "of another engine",
        "rollout",
        "disable_log_stats engine_kwargs.* skip_tokenizer_init expert_parallel_size scheduling_policy limit_images "
        "logprobs_mode trace.* profiler.* prometheus.* disaggregation.* mtp.* enable_rollout_routing_replay",
    ),
    *_ignored("Ray is started as its own variables say", "", "ray_kwargs.* ray_init.*"),
    *_ignored("of Hydra itself", "", "hydra.*"),
    *_ignored(
        _TRAINING,
        "",
        "_target_ actor.* critic.* ref.* reward.* reward_model.* reward_manager.* custom_reward_function.* algorithm.* "
        "global_profiler.* transfer_queue.* distillation.* model_engine actor_rollout_ref.actor.* "
        "actor_rollout_ref.ref.* actor_rollout_ref.hybrid_engine actor_rollout_ref.nccl_timeout",
    ),
)

# What decides about answers where nobody says it; limits of memory and devices are mindgen's own.
GENERATION_DEFAULTS: dict[str, Any] = {
    "data.n_samples": 5, "rollout.temperature": 1.0, "rollout.top_k": 50, "rollout.top_p": 0.7,
    "rollout.response_length": 512, "rollout.dtype": "bfloat16", "rollout.do_sample": True,
}  # fmt: skip
SERVER_DEFAULTS: dict[str, Any] = {
    "actor_rollout_ref.rollout.n": 1, "rollout.temperature": 1.0, "rollout.top_k": -1, "rollout.top_p": 1.0,
    "rollout.response_length": 512, "rollout.dtype": "bfloat16", "rollout.do_sample": True,
}  # fmt: skip
