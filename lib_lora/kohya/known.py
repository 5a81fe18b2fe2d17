"""Every key of kohya's that is no option of ours, with the reason. `table.py` joins them with the options.

A reason is one sentence for a person who knows the key. `network_args.KEY` is a key inside sd-scripts' `network_args`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["used", "not_supported", "ignored", "unknown"]


@dataclass(frozen=True)
class Group:
    """Keys that share a verdict and a reason. `switches`: GUI keys that turn them on; if all are off, the keys are ignored."""

    verdict: Verdict
    why: str
    keys: tuple[str, ...]
    switches: tuple[str, ...] = ()


def _group(verdict: Verdict, why: str, keys: str, switches: str = "") -> Group:
    return Group(verdict, why, tuple(keys.split()), tuple(switches.split()))


CLASS_TOKENS = "Only the caption of images without a caption file; here that is the text of the folder's name, N_text."

GROUPS: tuple[Group, ...] = (
    _group("ignored", "A name or a path of another machine.", "model_list vae file_path tokenizer_cache_dir config_file"),
    _group(
        "ignored",
        "Progress and loss are shown in the tab and kept by it; no log is written elsewhere.",
        "logging_dir log_with log_prefix log_config log_tracker_name log_tracker_config wandb_api_key wandb_run_name "
        "console_log_file console_log_level console_log_simple use_wandb use_wandb_checkbox wandb_api_key_textbox",
    ),
    _group(
        "ignored",
        "A setting of the machine: attention, memory and devices are the webui's own, and the numbers are the same.",
        "xformers sdpa mem_eff_attn lowram lowvram highvram cpu_offload_checkpointing fused_backward_pass torch_compile "
        "dynamo_backend dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph num_cpu_threads_per_process main_process_port "
        "max_data_loader_n_workers persistent_data_loader_workers ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph "
        "extra_accelerate_launch_args disable_mmap_load_safetensors cuda_device run_as_subprocess",
    ),
    _group("ignored", "The VAE always works in full precision, so it never overflows.", "no_half_vae sdxl_no_half_vae"),
    _group("ignored", "Kept latents are checked against the image each time.", "cache_info skip_cache_check"),
    _group("ignored", "Previews are drawn by the webui with its own sampler.", "sample_sampler"),
    _group(
        "ignored",
        "Bookkeeping of kohya's form.",
        "save_as_bool output_config save_as headless print_only toml_file model_dir modelbase",
    ),
    _group(
        "ignored",
        "Bookkeeping of LoRA_Easy_Training_Scripts; what kind of model it is the checkpoint says.",
        "easy_name name_replace tag_occurrence tag_file_location save_toml save_toml_location",
    ),
    _group(
        "ignored",
        "Bookkeeping of lora-scripts' form; what it shows or hides is looked at by itself.",
        "enable_block_weights enable_base_weight enable_preview",
    ),
    _group(
        "ignored",
        "Read by no program that trains: sd-scripts has lr_scheduler_num_cycles.",
        "lr_restart_cycles",
    ),
    _group("not_supported", "LoRAs are written as safetensors only, which every program reads.", "save_model_as"),
    _group(
        "not_supported",
        "Nothing is uploaded; the file is yours to share.",
        "async_upload huggingface_repo_id huggingface_token huggingface_repo_type huggingface_repo_visibility "
        "huggingface_path_in_repo save_state_to_huggingface resume_from_huggingface",
    ),
    _group(
        "not_supported",
        "DeepSpeed shards a model over several processes; here the model is the one that the webui holds.",
        "deepspeed zero_stage zero3_init_flag zero3_save_16bit_model offload_optimizer_device offload_optimizer_nvme_path "
        "offload_param_device offload_param_nvme_path fp16_master_weights_and_gradients",
    ),
    _group(
        "not_supported",
        "The webui trains on one device, which decides what a batch is.",
        "multi_gpu gpu_ids num_processes num_machines",
    ),
    _group(
        "not_supported",
        "A help for debugging sd-scripts, which trains nothing.",
        "debug_dataset",
    ),
    _group(
        "not_supported",
        "A help for debugging newer models, which trains nothing.",
        "show_timesteps show_timesteps_resolution",
        "flux1_checkbox sd3_checkbox lumina_checkbox anima_checkbox",
    ),
    _group("not_supported", "Runs code of the user's own.", "dataset_class"),
    _group("not_supported", "The loaded model's weights are never cast.", "fp8_base fp8_base_unet"),
    _group("ignored", "The checkpoint itself says what it is.", "v2 sdxl sdxl_checkbox"),
    _group(
        "ignored",
        "What a text encoder makes of a caption is kept by itself, where it is not trained.",
        "sdxl_cache_text_encoder_outputs cache_text_encoder_outputs cache_text_encoder_outputs_to_disk",
    ),
    _group(
        "not_supported",
        "An inpainting checkpoint is trained with everything masked; no masks are drawn.",
        "train_inpainting",
    ),
    _group(
        "not_supported",
        "Going on from a saved state finds its place by itself; see Resume from (resume).",
        "initial_epoch initial_step skip_until_initial_step",
    ),
    _group("not_supported", "Captions come from files beside the images, not from one metadata file.", "in_json metadata_file"),
    _group("not_supported", "Faces are not searched for; crop the pictures before.", "face_crop_aug_range"),
    _group("not_supported", "Captions are always padded, as the webui does.", "no_token_padding"),
    _group(
        "not_supported",
        "This note is not written into the file.",
        "metadata_thumbnail metadata_preprocessor metadata_merged_from metadata_is_negative_embedding metadata_trigger_phrase",
    ),
    _group("ignored", CLASS_TOKENS, "class_tokens"),
    _group("not_supported", "Folders have no attributes of their own.", "custom_attributes network_multiplier"),
    _group(
        "ignored",
        "An older name, which networks.lora did not read; it reads conv_block_dims and conv_block_alphas.",
        "conv_dims conv_alphas",
    ),
    _group(
        "not_supported",
        "Of kohya's training of whole models or of words alone, which is not done here; a LoRA is trained.",
        "learning_rate_te learning_rate_te1 learning_rate_te2 fused_optimizer_groups blockwise_fused_optimizers "
        "flux_fused_backward_pass flux1_clip_l flux1_t5xxl stable_cascade block_lr train_text_encoder template "
        "caption_metadata_filename latent_metadata_filename create_buckets create_caption full_path image_folder train_dir "
        "use_latent_files weights no_train_text_encoder",
    ),
    _group(
        "not_supported",
        "A prompt of the captions, drawn at random, is no sample here; write it in Sample prompts (sample_prompts).",
        "randomly_choice_prompt",
        "enable_preview",
    ),
    _group(
        "not_supported",
        "Contrastive training, of a form of lora-scripts, is not done.",
        "enable_contrastive adversarial_epsilon contrastive_warmup_steps contrastive_weight distance_metric momentum_coefficient "
        "negative_sampling_method noise_strength num_clusters queue_capacity",
        "enable_contrastive",
    ),
    _group("not_supported", "Scales a LoRA beside its alpha, in a form of lora-scripts; give it as alpha.", "network_scale"),
    _group("not_supported", "Settings that win over the form; write its keys into the file itself.", "ui_custom_params"),
    _group(
        "not_supported",
        "LyCORIS' own refinements and its DyLoRA are not trained.",
        "bypass_mode constrain rank_dropout_scale rescaled train_norm train_on_input use_cp use_scalar use_tucker "
        "network_args.use_tucker network_args.use_cp network_args.use_conv_cp network_args.disable_conv_cp "
        "network_args.use_scalar network_args.rs_lora network_args.bypass_mode network_args.train_norm "
        "network_args.block_size network_args.constraint network_args.constrain network_args.rescaled "
        "network_args.rank_dropout_scale network_args.unbalanced_factorization network_args.train_on_input "
        "network_args.train_t5xxl",
        "LoRA_type",
    ),
    _group(
        "not_supported",
        "LyCORIS' presets full, attn-mlp and ia3 are trained; see Which layers of the U-Net (train_layers).",
        "LyCORIS_preset network_args.preset",
        "LoRA_type",
    ),
    _group(
        "not_supported",
        "DoRA's strengths belong to inputs here, which is what the webui reads; those of outputs it would apply wrongly.",
        "network_args.wd_on_output",
    ),
    _group("not_supported", "Dropout of LyCORIS; give Dropout (network_dropout).", "network_args.dropout dropout"),
    _group(
        "not_supported",
        "FLUX.1 is not trained.",
        "flux1_checkbox flux1_cache_text_encoder_outputs flux1_cache_text_encoder_outputs_to_disk ae apply_t5_attn_mask "
        "double_blocks_to_swap single_blocks_to_swap enable_all_linear ggpo_beta ggpo_sigma train_lora_ggpo guidance_scale "
        "img_attn_dim img_mlp_dim img_mod_dim txt_attn_dim txt_mlp_dim txt_mod_dim single_dim single_mod_dim in_dims "
        "mem_eff_save model_type split_mode split_qkv train_blocks train_double_block_indices train_single_block_indices "
        "train_t5xxl t5xxl_max_token_length",
        "flux1_checkbox",
    ),
    _group(
        "not_supported",
        "Stable Diffusion 3 is not trained.",
        "sd3_checkbox sd3_cache_text_encoder_outputs sd3_cache_text_encoder_outputs_to_disk sd3_clip_l sd3_clip_l_dropout_rate "
        "sd3_disable_mmap_load_safetensors sd3_enable_scaled_pos_embed sd3_fused_backward_pass sd3_t5_dropout_rate sd3_t5xxl "
        "sd3_text_encoder_batch_size clip_g clip_g_dropout_rate logit_mean logit_std mode_scale pos_emb_random_crop_rate "
        "save_clip save_t5xxl t5xxl_device t5xxl_dtype weighting_scheme",
        "sd3_checkbox",
    ),
    _group(
        "not_supported",
        "FLUX.1, Stable Diffusion 3 and their relatives are not trained.",
        "blocks_to_swap clip_l discrete_flow_shift model_prediction_type sigmoid_scale t5xxl t5xxl_lr timestep_sampling",
        "flux1_checkbox sd3_checkbox lumina_checkbox hunyuan_image_checkbox anima_checkbox",
    ),
    _group(
        "not_supported",
        "Lumina is not trained.",
        "lumina_checkbox lumina_ae lumina_cache_text_encoder_outputs lumina_cache_text_encoder_outputs_to_disk "
        "lumina_discrete_flow_shift lumina_gemma2 lumina_gemma2_max_token_length lumina_model_prediction_type "
        "lumina_sigmoid_scale lumina_system_prompt lumina_timestep_sampling lumina_use_flash_attn lumina_use_sage_attn "
        "lumina_attn_dim lumina_embedder_dims lumina_mlp_dim lumina_mod_dim lumina_refiner_dim lumina_sample_batch_size "
        "lumina_split_qkv lumina_train_blocks lumina_verbose",
        "lumina_checkbox",
    ),
    _group(
        "not_supported",
        "HunyuanImage is not trained.",
        "hunyuan_image_checkbox hunyuan_attn_mode hunyuan_byt5 hunyuan_discrete_flow_shift hunyuan_fp8_scaled hunyuan_fp8_vl "
        "hunyuan_image_cache_text_encoder_outputs hunyuan_image_cache_text_encoder_outputs_to_disk "
        "hunyuan_model_prediction_type hunyuan_sigmoid_scale hunyuan_split_attn hunyuan_text_encoder hunyuan_text_encoder_cpu "
        "hunyuan_timestep_sampling hunyuan_vae hunyuan_vae_chunk_size",
        "hunyuan_image_checkbox",
    ),
    _group(
        "not_supported",
        "Anima is not trained.",
        "anima_checkbox anima_attn_mode anima_cache_text_encoder_outputs anima_cache_text_encoder_outputs_to_disk anima_compile "
        "anima_compile_backend anima_compile_cache_size_limit anima_compile_dynamic anima_compile_fullgraph anima_compile_mode "
        "anima_discrete_flow_shift anima_llm_adapter_path anima_qwen3 anima_qwen3_max_token_length anima_qwen_image_vae_2d "
        "anima_sigmoid_scale anima_split_attn anima_t5_max_token_length anima_t5_tokenizer_path anima_timestep_sampling "
        "anima_torch_compile anima_unsloth_offload_checkpointing anima_vae anima_vae_chunk_size anima_vae_disable_cache "
        "anima_blocks_to_swap anima_disable_mmap_load_safetensors anima_train_llm_adapter",
        "anima_checkbox",
    ),
)

# values of keys above that have no effect, besides empty, false and 0
NEUTRAL: dict[str, tuple[object, ...]] = {
    "save_model_as": ("safetensors",),
    "zero_stage": (2,),
    "num_processes": (1,),
    "num_machines": (1,),
    "network_multiplier": (1,),
    "network_scale": (1,),
    "huggingface_repo_type": ("model",),
    "huggingface_repo_visibility": ("private", "public"),
    "LyCORIS_preset": ("full",),
    "constrain": (0,),
    "show_timesteps": ("none",),
    "network_args.preset": ("full",),
}
# not supported, but one of our options does the same: if that is given, the key is ignored
REMEDIES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("LyCORIS_preset", "network_args.preset"), ("train_layers",)),
    **dict.fromkeys(("dropout", "network_args.dropout"), ("network_dropout",)),
    "network_scale": ("alpha",),
    "randomly_choice_prompt": ("sample_prompts",),
}
SECRETS = frozenset({"huggingface_token", "wandb_api_key"})

# other spellings of keys that are options: kohya_ss's form, dataset files, older versions
ALIASES: dict[str, str] = {
    "max_resolution": "resolution",
    "optimizer": "optimizer_type",
    "lora_network_weights": "network_weights",
    "caption_extention": "caption_extension",
    "cache_latent": "cache_latents",
    "sdxl_min_timestep": "min_timestep",
    "sdxl_max_timestep": "max_timestep",
    "lokr_factor": "factor",
    "dylora_unit": "unit",
    "prompt_file": "sample_prompts",
    "optimizer_args_custom": "optimizer_args",
    "batch_size": "train_batch_size",
}

# lora-scripts' form: the fields of its one sample
OF_THE_SAMPLE = ("negative_prompts", "sample_width", "sample_height", "sample_cfg", "sample_steps", "sample_seed")

# keys that affect options without being one
DECIDING: dict[str, tuple[str, ...]] = {
    "learning_rate": ("unet_lr", "text_encoder_lr"),
    "network_train_unet_only": ("text_encoder_lr",),
    "network_train_text_encoder_only": ("unet_lr",),
    "epoch": ("epochs",),
    "lr_warmup": ("lr_warmup_steps",),
    "stop_text_encoder_training": ("stop_text_encoder_training",),
    "stop_text_encoder_training_pct": ("stop_text_encoder_training",),
    "use_8bit_adam": ("optimizer",),
    "use_lion_optimizer": ("optimizer",),
    "noise_offset_type": ("noise_offset", "multires_noise_iterations"),
    "num_repeats": ("repeats",),
    "dataset_repeats": ("repeats",),
    "train_data_dir_repeat": ("repeats",),
    "image_dir": ("data", "reg_data"),
    "is_reg": ("reg_data",),
    "dataset_config": ("data", "repeats"),
    "LoRA_type": ("adapter_type",),
    "network_module": ("adapter_type",),
    "network_args.algo": ("adapter_type",),
    "dora_wd": ("adapter_type",),
    "network_args.dora_wd": ("adapter_type",),
    "token_string": ("trigger", "embedding_vectors"),
    "num_vectors_per_token": ("embedding_vectors",),
    "init_word": ("init_word",),
    "network_args": (),
    "network_args_custom": (),
    "additional_parameters": (),
    "network_train": ("unet_lr", "text_encoder_lr"),
    "locon": ("adapter_type",),
    "lycoris_algo": ("adapter_type",),
    "fa": ("adapter_type",),
    "model_train_type": (),
    "train_mode": (),
    "warmup_ratio": ("lr_warmup_steps",),
    "prodigy_d0": ("optimizer_args",),
    "prodigy_d_coef": ("optimizer_args",),
    "positive_prompts": ("sample_prompts",),
    **dict.fromkeys(OF_THE_SAMPLE, ("sample_prompts",)),
}
WHY_DECIDING: dict[str, str] = {
    "learning_rate": "Stands in for a rate that is not given.",
    "network_train_unet_only": "The text encoder is left untrained.",
    "network_train_text_encoder_only": "The U-Net is left untrained.",
    "epoch": "The form's number of epochs, where neither max_train_epochs nor max_train_steps is given.",
    "lr_warmup": "Percent of all steps, where lr_warmup_steps is not given.",
    "stop_text_encoder_training": "In the form percent of all steps; 0 never stops.",
    "stop_text_encoder_training_pct": "Percent of all steps; 0 never stops.",
    "use_8bit_adam": "AdamW8bit, where no optimizer is named.",
    "use_lion_optimizer": "Lion, where no optimizer is named.",
    "noise_offset_type": "Original or Multires: decides which noise options count.",
    "num_repeats": "Repeats of folders whose name has no number.",
    "dataset_repeats": "Repeats of folders whose name has no number.",
    "train_data_dir_repeat": "Repeats of folders whose name has no number.",
    "image_dir": "A folder of another machine; choose the images here, in Image folder (data).",
    "is_reg": "Goes with a folder that is not taken over; see Regularisation folder (reg_data).",
    "dataset_config": "The file of folders; it is read too where it is found.",
    "LoRA_type": "Standard, Kohya LoCon, Kohya DyLoRA, and LyCORIS' LoCon, LoHa, LoKr, iA3, Diag-OFT and GLoRA are trained; "
    "others are not.",
    "network_module": "networks.lora and networks.dylora are trained, and lycoris.kohya with the algorithms below.",
    "network_args.algo": "LyCORIS' algorithm: lora, locon, loha, lokr, ia3, diag-oft or glora.",
    "dora_wd": "DoRA, over LoRA and LoCon, with strengths of inputs.",
    "network_args.dora_wd": "DoRA, over LoRA and LoCon, with strengths of inputs.",
    "token_string": "Of textual inversion: the trigger word, whose embedding is trained together with the LoRA.",
    "num_vectors_per_token": "Of textual inversion, with token_string: how many tokens the word is trained as.",
    "init_word": "Of textual inversion, with token_string: what the word means at first.",
    "network_args": "Each of its arguments is looked at by itself.",
    "network_args_custom": "Each of its arguments is looked at by itself.",
    "additional_parameters": "Each of its arguments is looked at by itself.",
    "network_train": "Of the first forms: which of U-Net and text encoder is trained.",
    "locon": "Of early forms: LoCon, which trains convolutions too.",
    "lycoris_algo": "LyCORIS' algorithm, in lora-scripts' form.",
    "fa": "LoRA-FA, in LoRA_Easy_Training_Scripts, is not trained.",
    "model_train_type": "In lora-scripts' form: sd-lora and sdxl-lora are trained.",
    "train_mode": "In LoRA_Easy_Training_Scripts: a LoRA is trained.",
    "warmup_ratio": "Share of all steps, in LoRA_Easy_Training_Scripts.",
    "prodigy_d0": "Of lora-scripts' form, for Prodigy alone.",
    "prodigy_d_coef": "Of lora-scripts' form, for Prodigy alone.",
    "positive_prompts": "The sample of lora-scripts' form, with its size, strength, steps and seed.",
    **dict.fromkeys(OF_THE_SAMPLE, "Part of the sample of lora-scripts' form."),
}
