"""Names that other trainers give to the keys of a run, for the error about an unknown key.

They come from Megatron-LM, Hugging Face's Trainer, nanoGPT, MosaicML's Composer, Lightning and
older releases of TorchTitan. None of them is accepted: units and defaults may differ. A name with a
section is meant in that section only. Underscores and capitals do not matter.
"""

from collections.abc import Mapping

OTHER_NAMES: Mapping[str, str] = {
    "activation_checkpoint.mode": "gradient_checkpointing activation_checkpointing recompute "
    "recompute_granularity recompute_activations activation_checkpoint.enable",
    "blendcorpus.data_file_list": "data data_path data_dir data_folder data_file data_files "
    "data_prefix train_data train_data_path train_file train_files file_list "
    "dataset_dir dataset_folder blendcorpus.path blendcorpus.dataset blendcorpus.dataset_path",
    "blendcorpus.num_workers": "num_workers dataloader_num_workers num_data_workers workers",
    "blendcorpus.provide_attention_mask": "reset_position_ids reset_attention_mask "
    "document_mask document_masking doc_mask intra_document_masking",
    "blendcorpus.seed": "data_seed shuffle_seed",
    "blendcorpus.shuffle_sample_in_corpus": "shuffle shuffle_data",
    "blendcorpus.split": "split splits train_split train_valid_test_split",
    "checkpoint.async_mode": "async_save async_checkpoint checkpoint.async",
    "checkpoint.enable": "enable_checkpointing enable_checkpoints save_checkpoints",
    "checkpoint.folder": "ckpt_dir ckpt_folder ckpt_path checkpoint_dir checkpoint_folder "
    "save save_folder save_path checkpoint.dir checkpoint.path checkpoint.save checkpoint.save_dir",
    "checkpoint.interval": "save_interval save_steps save_every save_freq save_iters "
    "checkpoint_interval checkpoint_freq checkpoint_every checkpoint_steps ckpt_interval "
    "ckpt_freq ckpt_every every_n_train_steps checkpoint.freq checkpoint.frequency "
    "checkpoint.every checkpoint.steps",
    "checkpoint.keep_latest_k": "save_total_limit keep_last keep_latest keep_last_n keep_last_k "
    "max_checkpoints num_checkpoints_to_keep save_num_checkpoints_to_keep save_top_k "
    "checkpoint.keep",
    "checkpoint.load_step": "resume_step ckpt_step",
    "compile.enable": "compile torch_compile use_compile enable_compile compile_model",
    "debug.deterministic": "deterministic deterministic_mode full_determinism",
    "guards.wall_time_minutes": "wall_time time_limit exit_duration_in_mins",
    "job.dump_folder": "output_dir out_dir output_folder output_path output run_dir run_folder "
    "exp_dir job.folder job.dir job.output",
    "lr_scheduler.decay_type": "lr_decay_style lr_scheduler_type lr_schedule schedule_type "
    "lr_scheduler.type lr_scheduler.name lr_scheduler.style",
    "lr_scheduler.total_steps": "lr_decay_iters lr_scheduler.steps lr_scheduler.max_steps",
    "lr_scheduler.warmup_steps": "warmup warmup_iters lr_warmup lr_warmup_iters lr_warmup_steps "
    "num_warmup_steps t_warmup",
    "metrics.enable_tensorboard": "tensorboard use_tensorboard tb",
    "metrics.enable_wandb": "wandb use_wandb wandb_log log_wandb wandb.enable wandb.enabled",
    "metrics.log_freq": "log_interval log_every log_steps log_every_n_steps logging_steps "
    "logging_interval log_frequency metrics.freq metrics.interval",
    "metrics.save_tb_folder": "tensorboard_dir tensorboard_folder tb_dir tb_folder",
    "model.attn_backend": "attention_backend attn_implementation attn_impl attention_impl "
    "flash_attn use_flash_attn flash_attention use_flash_attention attn_type",
    "model.converters": "fp8 float8 use_fp8 enable_fp8 enable_float8",
    "model.flavor": "flavor model_size model_flavor model.size model.config model.preset",
    "model.hf_assets_path": "model_path model_name_or_path pretrained_model_name_or_path "
    "hf_path model.path",
    "model.name": "model_name model_type model.type model.arch model.architecture",
    "model.vocab_size": "padded_vocab_size",
    "model.tokenizer_backend": "tokenizer_type tokenizer.type tokenizer.backend",
    "model.tokenizer_path": "tokenizer tokenizer_name tokenizer_model tokenizer_file "
    "tokenizer_name_or_path tokenizer_dir vocab_file tokenizer.path tokenizer.name "
    "tokenizer.model",
    "optimizer.beta1": "beta1 adam_beta1",
    "optimizer.beta2": "beta2 adam_beta2",
    "optimizer.eps": "eps adam_eps adam_epsilon epsilon",
    "optimizer.lr": "lr learning_rate max_lr peak_lr base_lr lr_max max_learning_rate",
    "optimizer.name": "optimizer optim optimizer_name optimizer.type",
    "optimizer.weight_decay": "wd adam_weight_decay",
    "parallelism.context_parallel_degree": "cp cp_size cp_degree context_parallel "
    "context_parallel_size context_parallelism",
    "parallelism.data_parallel_replicate_degree": "ddp dp_replicate replicate_degree",
    "parallelism.data_parallel_shard_degree": "fsdp fsdp_size fsdp_degree dp_shard shard_degree",
    "parallelism.enable_sequence_parallel": "sequence_parallel use_sequence_parallel",
    "parallelism.expert_parallel_degree": "ep ep_size ep_degree expert_parallel "
    "expert_parallel_size expert_model_parallel_size",
    "parallelism.fsdp_reshard_after_forward": "reshard_after_forward",
    "parallelism.pipeline_parallel_degree": "pp pp_size pp_degree pipeline_parallel "
    "pipeline_parallel_size pipeline_model_parallel_size pipeline_parallelism",
    "parallelism.pipeline_parallel_schedule": "pp_schedule pipeline_schedule",
    "parallelism.tensor_parallel_degree": "tp tp_size tp_degree tensor_parallel "
    "tensor_parallel_size tensor_model_parallel_size tensor_parallelism",
    "profiling.enable_profiling": "profile profiler profiling profiling.enable",
    "profiling.profile_freq": "profile_every profiling.freq profiling.interval",
    "training.batch_schedule": "rampup_batch_size batch_size_warmup batch_size_schedule",
    "training.enable_cpu_offload": "cpu_offload",
    "training.gc_freq": "gc_interval manual_gc_interval",
    "training.global_batch_size": "global_batch gbs global_train_batch_size batch_size_global "
    "total_batch_size",
    "training.local_batch_size": "local_batch_size batch_size local_batch micro_batch "
    "micro_batch_size mbs per_device_batch_size per_device_train_batch_size device_batch_size "
    "device_train_microbatch_size train_micro_batch_size_per_gpu batch_size_per_gpu",
    "training.max_norm": "grad_clip clip_grad clip_grad_norm grad_clip_norm grad_norm_clip "
    "max_grad_norm gradient_clip gradient_clipping gradient_clip_val clip_norm",
    "training.mixed_precision_param": "precision bf16 fp16 amp mixed_precision param_dtype "
    "torch_dtype",
    "training.seq_len": "seq_len seq_length sequence_len sequence_length max_seq_len "
    "max_seq_length max_sequence_length max_length context_length context_len context_size "
    "context_window block_size n_ctx",
    "training.steps": "max_steps num_steps total_steps train_steps num_train_steps "
    "training_steps max_train_steps train_iters max_iters num_iters iters iterations "
    "num_iterations max_iterations max_duration",
    "validation.enable": "do_eval eval do_validation validate",
    "validation.freq": "eval_interval eval_every eval_freq eval_frequency val_interval val_freq "
    "val_every val_check_interval validate_every validation_interval validation_freq "
    "validation.interval validation.frequency validation.every validation.every_n_steps",
    "validation.steps": "eval_iters val_steps val_iters val_batches limit_val_batches "
    "validation.iters validation.batches validation.num_batches",
}
"""Key to its other names, separated by spaces."""

_WEIGHTS = (
    "Weights are in the file list that blendcorpus.data_file_list names. In a folder of "
    "`blendtitan init`, set [epochs] in data.toml and run `blendtitan prepare`."
)
_WANDB = (
    "metrics.enable_wandb = true logs to Weights & Biases. The environment variables "
    "WANDB_PROJECT and WANDB_RUN_NAME name the project and the run."
)

EXPLAINED: Mapping[str, str] = {
    "beta betas adam_betas": "The two betas are optimizer.beta1 and optimizer.beta2.",
    "min_lr lr_min final_lr min_learning_rate lr_end alpha_f": (
        "lr_scheduler.min_lr_factor sets the lowest learning rate, as a fraction of optimizer.lr."
    ),
    "warmup_ratio warmup_fraction warmup_pct lr_warmup_fraction lr_warmup_samples warmup_tokens": (
        "lr_scheduler.warmup_steps sets the warm-up, in steps."
    ),
    "epoch epochs num_epochs num_train_epochs max_epochs n_epochs": (
        "training.steps sets the length of the run, and blendcorpus.max_epochs limits the epochs "
        "of each corpus."
    ),
    "tokens max_tokens num_tokens total_tokens train_tokens training.samples train_samples "
    "max_samples num_samples num_train_samples": (
        "training.steps sets the length of the run. A step reads training.global_batch_size "
        "samples of training.seq_len tokens."
    ),
    "gradient_accumulation_steps grad_accum grad_accum_steps accumulation_steps "
    "accumulate_grad_batches gradient_accumulation grad_accumulation": (
        "The number of accumulation steps follows from training.global_batch_size and "
        "training.local_batch_size."
    ),
    "train_batch_size": (
        "training.local_batch_size is the batch of a rank, training.global_batch_size that of all."
    ),
    "eval_batch_size per_device_eval_batch_size val_batch_size device_eval_batch_size "
    "validation.batch_size validation.global_batch_size": (
        "Validation has the batches of training: training.local_batch_size on each rank."
    ),
    "eval_steps": (
        "validation.freq is the number of steps between validations, validation.steps the number "
        "of steps of each."
    ),
    "eval_samples": "validation.samples limits the samples of a validation.",
    "seed random_seed": (
        "debug.seed initialises the model, and blendcorpus.seed determines the order of the data."
    ),
    "dp dp_size dp_degree hsdp data_parallel data_parallel_degree data_parallel_size": (
        "parallelism.data_parallel_shard_degree is the degree of FSDP, "
        "parallelism.data_parallel_replicate_degree that of replication."
    ),
    "dtype training.param training.bfloat16": (
        "training.mixed_precision_param is the type that the model computes in, training.dtype the "
        "type of its parameters."
    ),
    "nproc nproc_per_node num_gpus gpus n_gpus devices nnodes num_nodes": (
        "The number of processes is an option: `blendtitan train RUN --nproc N`, and --nnodes N "
        "for several machines."
    ),
    "resume resume_from resume_from_checkpoint load_checkpoint auto_resume load": (
        "A run with checkpoint.enable = true resumes from its latest checkpoint. "
        "checkpoint.load_step chooses another one."
    ),
    "init_from load_path initial_checkpoint_dir pretrained pretrained_checkpoint "
    "pretrained_weights initial_weights model.weights checkpoint.weights": (
        "checkpoint.initial_load_path names a checkpoint to start from. If it has Hugging Face's "
        "format, set checkpoint.initial_load_in_hf = true."
    ),
    "n_layer n_layers num_layers num_hidden_layers n_embd d_model hidden_size model.dim n_head "
    "n_heads num_heads num_attention_heads ffn_hidden_size intermediate_size num_experts": (
        "model.flavor chooses the sizes of the model."
    ),
    "blendcorpus.weights blendcorpus.weight training.weights blendcorpus.shares data_weights "
    "corpus_weights dataset_weights blend blendcorpus.mix mixture mixture_weights data_blend "
    "proportions blendcorpus.epochs": _WEIGHTS,
    "report_to": "metrics.enable_tensorboard and metrics.enable_wandb choose where metrics go.",
    "wandb_project wandb_name wandb_run_name wandb_exp_name wandb_entity "
    "wandb.project wandb.name metrics.project": _WANDB,
}
"""Names, separated by spaces, that no single key replaces, and what to do instead."""

OTHER_SECTIONS: Mapping[str, str] = {
    "activation_checkpoint": "ac activation_checkpointing gradient_checkpointing",
    "blendcorpus": "blend blendtitan corpus corpora data dataset datasets dataloader",
    "checkpoint": "ckpt checkpoints checkpointing save",
    "compile": "torch_compile",
    "job": "run experiment",
    "lr_scheduler": "scheduler lr_schedule schedule",
    "metrics": "log logger logging logs wandb tensorboard tb",
    "model": "tokenizer",
    "optimizer": "optim opt",
    "parallelism": "parallel dist distributed fsdp",
    "profiling": "profile profiler",
    "training": "train trainer",
    "validation": "eval evaluation val valid validate validator",
}
"""Section to its other names, separated by spaces."""
