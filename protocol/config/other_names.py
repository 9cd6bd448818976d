"""What other trainers call our keys, for those who come from them: TRL, verl, OpenRLHF, vLLM, peft.

>>> meant(("learner", "learning_rate"))
'learner.lr'
>>> meant(("learner", "grad_clp"))
'learner.grad_clip'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from chorus.protocol.config.places import fields_at, forms
from chorus.protocol.config.run import RunConfig

_NEAR = 0.75

_OTHER_NAMES = {
    "model.path": "model_name_or_path model_name pretrain actor_model base_model",
    "model.dtype": "bf16 fp16 torch_dtype precision",
    "model.context": "max_model_len max_length max_seq_len max_seq_length context_length",
    "model.lora.rank": "lora_r lora_rank r",
    "model.lora.alpha": "lora_alpha",
    "model.lora.targets": "lora_target_modules target_modules",
    "problems.train": "dataset dataset_name train_files train_file prompt_data train_dataset data_path train_data",
    "problems.heldout": "eval_dataset val_files test_files test_file eval_data val_dataset",
    "problems.max_prompt_tokens": "max_prompt_length max_prompt_len prompt_max_len",
    "templates.names": "system_prompt prompt_template template apply_chat_template",
    "sampling.max_tokens": "max_completion_length max_new_tokens max_response_length generate_max_len response_length",
    "sampling.group_size": "num_generations n rollout_n n_samples_per_prompt num_samples group num_return_sequences",
    "staleness.max": "max_staleness max_async_level off_policy_steps",
    "objective.name": "algorithm adv_estimator loss_type advantage_estimator algo",
    "objective.kl_coefficient": "beta kl_coef kl_loss_coef init_kl_coef kl_coeff kl_penalty",
    "objective.entropy_coefficient": "entropy_coeff entropy_coef ent_coef",
    "objective.clip_low": "epsilon cliprange clip_ratio clip_eps eps_clip clip_ratio_low epsilon_low",
    "objective.clip_high": "epsilon_high clip_ratio_high eps_clip_high",
    "objective.aggregation": "loss_agg_mode",
    "objective.overlong_filter": "mask_truncated_completions",
    "learner.lr": "learning_rate actor_learning_rate actor_lr",
    "learner.lr_schedule": "lr_scheduler_type lr_scheduler scheduler",
    "learner.warmup_steps": "lr_warmup_steps num_warmup_steps",
    "learner.grad_clip": "max_grad_norm grad_norm clip_grad max_norm gradient_clipping",
    "learner.betas": "adam_beta1 adam_beta2 adam_betas",
    "learner.optimizer": "optim",
    "learner.offload": "adam_offload optimizer_offload cpu_offload",
    "learner.groups_per_step": "train_batch_size rollout_batch_size batch_size per_device_train_batch_size",
    "learner.updates_per_step": "ppo_mini_batch_size num_iterations ppo_epochs mini_batch_size",
    "learner.token_budget": "ppo_max_token_len_per_gpu micro_batch_size micro_train_batch_size max_token_len",
    "learner.gradient_checkpointing": "enable_gradient_checkpointing activation_checkpointing",
    "learner.checkpoint_every": "save_steps save_freq save_interval",
    "learner.keep_checkpoints": "save_total_limit max_ckpt_num max_actor_ckpt_to_keep",
    "run.steps": "max_steps total_training_steps num_steps total_steps num_train_epochs total_epochs num_episodes",
    "run.dir": "output_dir save_path default_local_dir",
    "run.name": "run_name experiment_name",
    "generator.replicas": "vllm_num_engines num_engines num_generators",
    "generator.gpu_memory": "gpu_memory_utilization vllm_gpu_memory_utilization vllm_gpu_util",
    "generator.max_num_seqs": "vllm_max_num_seqs max_running_requests",
    "placement.generator_gpus": "tensor_parallel_size tensor_model_parallel_size vllm_tensor_parallel_size",
    "placement.learner_gpus": "n_gpus_per_node num_gpus devices cuda_visible_devices",
    "reward.graders": "reward_funcs reward_function custom_reward_function reward_fn remote_rm_url",
    "reward.terms": "reward_weights",
    "trackers.wandb": "report_to wandb_project use_wandb logger project_name",
    "evaluation.every": "eval_steps test_freq eval_freq eval_interval eval_every",
}
_OURS = {name: key for key, names in _OTHER_NAMES.items() for name in names.split()}


def meant(location: Sequence[int | str]) -> str | None:
    """The key that a key of no recipe probably stands for: by its name elsewhere, or one letter off; else None."""
    name = str(location[-1]).lower()
    if name in _OURS:
        return _OURS[name]
    keys = list(all_keys())
    section = ".".join(map(str, location[:-1]))
    if elsewhere := [key for key in keys if key.rpartition(".")[2] == name]:
        return next((key for key in elsewhere if key.startswith(("run.", "learner.", "sampling."))), elsewhere[0])
    near = get_close_matches(name, fields_at(location[:-1]), 1, _NEAR)
    return ".".join(filter(None, (section, near[0]))) if near else None


def all_keys(model: Any = None, above: str = "") -> Iterator[str]:
    """All that a recipe may set, in its sections' order."""
    for name, field in (model or RunConfig).model_fields.items():
        section = next((form for form in forms(field.annotation) if hasattr(form, "model_fields")), None)
        if section is None:
            yield f"{above}{name}"
        else:
            yield from all_keys(section, f"{above}{name}.")
