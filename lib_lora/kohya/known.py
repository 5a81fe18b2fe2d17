"""Every key of kohya's that is no option of ours, with the reason. `table.py` joins them with the options.

A reason is one sentence for a person who knows the key. `network_args.KEY` is a key inside sd-scripts' `network_args`.
"""

from __future__ import annotations

from collections.abc import Iterator
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


CLASS_TOKENS = "Only the caption of images without a caption file; here that is the text in the folder's name, N_text."

# reason -> keys, or keys and switches
_Reasons = dict[str, str | tuple[str, str]]
_IGNORED: _Reasons = {
    "A name or path of another computer.": "model_list vae file_path tokenizer_cache_dir config_file",
    "Progress and loss are shown and kept in the tab; no other log is written.": (
        "logging_dir log_with log_prefix log_config log_tracker_name log_tracker_config wandb_api_key wandb_run_name "
        "console_log_file console_log_level console_log_simple use_wandb use_wandb_checkbox wandb_api_key_textbox"
    ),
    "A setting of the computer: attention, memory and devices are the webui's own, and the results are the same.": (
        "xformers sdpa mem_eff_attn lowram lowvram highvram cpu_offload_checkpointing fused_backward_pass torch_compile "
        "dynamo_backend dynamo_mode dynamo_use_dynamic dynamo_use_fullgraph num_cpu_threads_per_process main_process_port "
        "max_data_loader_n_workers persistent_data_loader_workers ddp_timeout ddp_gradient_as_bucket_view ddp_static_graph "
        "extra_accelerate_launch_args disable_mmap_load_safetensors cuda_device run_as_subprocess"
    ),
    "The VAE always works in full precision, so it never overflows.": "no_half_vae sdxl_no_half_vae",
    "Cached latents are checked against the image every time.": "cache_info skip_cache_check",
    "Samples are generated with our own sampler.": "sample_sampler",
    "Bookkeeping of kohya's form.": "save_as_bool output_config save_as headless print_only toml_file model_dir modelbase",
    "Bookkeeping of LoRA_Easy_Training_Scripts; the checkpoint determines the model's family.": (
        "easy_name name_replace tag_occurrence tag_file_location save_toml save_toml_location"
    ),
    "Bookkeeping of lora-scripts' form; the options that it shows or hides are read separately.": (
        "enable_block_weights enable_base_weight enable_preview"
    ),
    "Not read by any trainer: sd-scripts uses lr_scheduler_num_cycles.": "lr_restart_cycles",
    "Detected from the checkpoint.": "v2 sdxl sdxl_checkbox",
    "Outputs of text encoders are cached automatically if they are not trained.": (
        "sdxl_cache_text_encoder_outputs cache_text_encoder_outputs cache_text_encoder_outputs_to_disk"
    ),
    CLASS_TOKENS: "class_tokens",
    "An older name that networks.lora did not read; it reads conv_block_dims and conv_block_alphas.": "conv_dims conv_alphas",
}

_NOT_SUPPORTED: _Reasons = {
    "LoRAs are saved only as safetensors, which every program reads.": "save_model_as",
    "Nothing is uploaded; you can share the file yourself.": (
        "async_upload huggingface_repo_id huggingface_token huggingface_repo_type huggingface_repo_visibility "
        "huggingface_path_in_repo save_state_to_huggingface resume_from_huggingface"
    ),
    "DeepSpeed splits a model over several processes; here it is the model that the webui has loaded.": (
        "deepspeed zero_stage zero3_init_flag zero3_save_16bit_model offload_optimizer_device offload_optimizer_nvme_path "
        "offload_param_device offload_param_nvme_path fp16_master_weights_and_gradients"
    ),
    "The webui trains on one device.": "multi_gpu gpu_ids num_processes num_machines",
    "For debugging sd-scripts, without training.": "debug_dataset",
    "For debugging newer models, without training.": (
        "show_timesteps show_timesteps_resolution",
        "flux1_checkbox sd3_checkbox lumina_checkbox anima_checkbox",
    ),
    "Runs code of the user.": "dataset_class",
    "The loaded model's weights are never cast.": "fp8_base fp8_base_unet",
    "An inpainting checkpoint is trained with everything masked; no masks are generated.": "train_inpainting",
    "A resumed run finds its position by itself; see Resume from (resume).": "initial_epoch initial_step skip_until_initial_step",
    "Captions come from files next to the images, not from one metadata file.": "in_json metadata_file",
    "Faces are not detected; crop the images first.": "face_crop_aug_range",
    "Captions are always padded, as in the webui.": "no_token_padding",
    "This entry is not written to the file.": (
        "metadata_thumbnail metadata_preprocessor metadata_merged_from metadata_is_negative_embedding metadata_trigger_phrase"
    ),
    "Folders do not have attributes of their own.": "custom_attributes network_multiplier",
    "For training whole models or only embeddings, which is not supported; a LoRA is trained.": (
        "learning_rate_te learning_rate_te1 learning_rate_te2 fused_optimizer_groups blockwise_fused_optimizers "
        "flux_fused_backward_pass flux1_clip_l flux1_t5xxl stable_cascade block_lr train_text_encoder template "
        "caption_metadata_filename latent_metadata_filename create_buckets create_caption full_path image_folder train_dir "
        "use_latent_files weights no_train_text_encoder"
    ),
    "Random captions are not used as sample prompts; enter one in Sample prompts (sample_prompts).": (
        "randomly_choice_prompt",
        "enable_preview",
    ),
    "Contrastive training, from a form of lora-scripts, is not supported.": (
        "enable_contrastive adversarial_epsilon contrastive_warmup_steps contrastive_weight distance_metric "
        "momentum_coefficient negative_sampling_method noise_strength num_clusters queue_capacity",
        "enable_contrastive",
    ),
    "Scales a LoRA in addition to its alpha, in a form of lora-scripts; use alpha instead.": "network_scale",
    "Settings that override the form; put its keys into the file itself.": "ui_custom_params",
    "LyCORIS' own variants and its DyLoRA are not supported.": (
        "bypass_mode constrain rank_dropout_scale rescaled train_norm train_on_input use_cp use_scalar use_tucker "
        "network_args.use_tucker network_args.use_cp network_args.use_conv_cp network_args.disable_conv_cp "
        "network_args.use_scalar network_args.rs_lora network_args.bypass_mode network_args.train_norm "
        "network_args.block_size network_args.constraint network_args.constrain network_args.rescaled "
        "network_args.rank_dropout_scale network_args.unbalanced_factorization network_args.train_on_input "
        "network_args.train_t5xxl",
        "LoRA_type",
    ),
    "LyCORIS' presets full, attn-mlp and ia3 are supported; see Which layers of the U-Net (train_layers).": (
        "LyCORIS_preset network_args.preset",
        "LoRA_type",
    ),
    "DoRA's magnitudes are per input here, as the webui reads them; it would apply those per output wrongly.": (
        "network_args.wd_on_output"
    ),
    "Dropout of LyCORIS; use Dropout (network_dropout).": "network_args.dropout dropout",
    "FLUX.1 is not supported.": (
        "flux1_checkbox flux1_cache_text_encoder_outputs flux1_cache_text_encoder_outputs_to_disk ae apply_t5_attn_mask "
        "double_blocks_to_swap single_blocks_to_swap enable_all_linear ggpo_beta ggpo_sigma train_lora_ggpo guidance_scale "
        "img_attn_dim img_mlp_dim img_mod_dim txt_attn_dim txt_mlp_dim txt_mod_dim single_dim single_mod_dim in_dims "
        "mem_eff_save model_type split_mode split_qkv train_blocks train_double_block_indices train_single_block_indices "
        "train_t5xxl t5xxl_max_token_length",
        "flux1_checkbox",
    ),
    "Stable Diffusion 3 is not supported.": (
        "sd3_checkbox sd3_cache_text_encoder_outputs sd3_cache_text_encoder_outputs_to_disk sd3_clip_l "
        "sd3_clip_l_dropout_rate sd3_disable_mmap_load_safetensors sd3_enable_scaled_pos_embed sd3_fused_backward_pass "
        "sd3_t5_dropout_rate sd3_t5xxl sd3_text_encoder_batch_size clip_g clip_g_dropout_rate logit_mean logit_std mode_scale "
        "pos_emb_random_crop_rate save_clip save_t5xxl t5xxl_device t5xxl_dtype weighting_scheme",
        "sd3_checkbox",
    ),
    "FLUX.1, Stable Diffusion 3 and related models are not supported.": (
        "blocks_to_swap clip_l discrete_flow_shift model_prediction_type sigmoid_scale t5xxl t5xxl_lr timestep_sampling",
        "flux1_checkbox sd3_checkbox lumina_checkbox hunyuan_image_checkbox anima_checkbox",
    ),
    "Lumina is not supported.": (
        "lumina_checkbox lumina_ae lumina_cache_text_encoder_outputs lumina_cache_text_encoder_outputs_to_disk "
        "lumina_discrete_flow_shift lumina_gemma2 lumina_gemma2_max_token_length lumina_model_prediction_type "
        "lumina_sigmoid_scale lumina_system_prompt lumina_timestep_sampling lumina_use_flash_attn lumina_use_sage_attn "
        "lumina_attn_dim lumina_embedder_dims lumina_mlp_dim lumina_mod_dim lumina_refiner_dim lumina_sample_batch_size "
        "lumina_split_qkv lumina_train_blocks lumina_verbose",
        "lumina_checkbox",
    ),
    "HunyuanImage is not supported.": (
        "hunyuan_image_checkbox hunyuan_attn_mode hunyuan_byt5 hunyuan_discrete_flow_shift hunyuan_fp8_scaled hunyuan_fp8_vl "
        "hunyuan_image_cache_text_encoder_outputs hunyuan_image_cache_text_encoder_outputs_to_disk "
        "hunyuan_model_prediction_type hunyuan_sigmoid_scale hunyuan_split_attn hunyuan_text_encoder hunyuan_text_encoder_cpu "
        "hunyuan_timestep_sampling hunyuan_vae hunyuan_vae_chunk_size",
        "hunyuan_image_checkbox",
    ),
    "Anima is not supported.": (
        "anima_checkbox anima_attn_mode anima_cache_text_encoder_outputs anima_cache_text_encoder_outputs_to_disk "
        "anima_compile anima_compile_backend anima_compile_cache_size_limit anima_compile_dynamic anima_compile_fullgraph "
        "anima_compile_mode anima_discrete_flow_shift anima_llm_adapter_path anima_qwen3 anima_qwen3_max_token_length "
        "anima_qwen_image_vae_2d anima_sigmoid_scale anima_split_attn anima_t5_max_token_length anima_t5_tokenizer_path "
        "anima_timestep_sampling anima_torch_compile anima_unsloth_offload_checkpointing anima_vae anima_vae_chunk_size "
        "anima_vae_disable_cache anima_blocks_to_swap anima_disable_mmap_load_safetensors anima_train_llm_adapter",
        "anima_checkbox",
    ),
}


def _groups(verdict: Verdict, reasons: _Reasons) -> Iterator[Group]:
    for why, said in reasons.items():
        keys, switches = (said, "") if isinstance(said, str) else said
        yield Group(verdict, why, tuple(keys.split()), tuple(switches.split()))


GROUPS = (*_groups("ignored", _IGNORED), *_groups("not_supported", _NOT_SUPPORTED))

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

# keys that affect options without being one -> these options, and the reason
DECIDING: dict[str, tuple[tuple[str, ...], str]] = {
    "learning_rate": (("unet_lr", "text_encoder_lr"), "Used for a learning rate that is not given."),
    "network_train_unet_only": (("text_encoder_lr",), "The text encoder is not trained."),
    "network_train_text_encoder_only": (("unet_lr",), "The U-Net is not trained."),
    "epoch": (("epochs",), "The form's number of epochs, used if neither max_train_epochs nor max_train_steps is given."),
    "lr_warmup": (("lr_warmup_steps",), "Percent of all steps, used if lr_warmup_steps is not given."),
    "stop_text_encoder_training": (("stop_text_encoder_training",), "In the form, percent of all steps; 0 never stops."),
    "stop_text_encoder_training_pct": (("stop_text_encoder_training",), "Percent of all steps; 0 never stops."),
    "use_8bit_adam": (("optimizer",), "AdamW8bit, if no optimizer is given."),
    "use_lion_optimizer": (("optimizer",), "Lion, if no optimizer is given."),
    "noise_offset_type": (
        ("noise_offset", "multires_noise_iterations"),
        "Original or Multires: decides which noise options are used.",
    ),
    **dict.fromkeys(
        ("num_repeats", "dataset_repeats", "train_data_dir_repeat"),
        (("repeats",), "Repeats of folders without a number in their name."),
    ),
    "image_dir": (("data", "reg_data"), "A folder of another computer; choose the images in Image folder (data)."),
    "is_reg": (("reg_data",), "Belongs to a folder that is not taken over; see Regularisation folder (reg_data)."),
    "dataset_config": (("data", "repeats"), "The file of folders; it is read too if it is found."),
    "LoRA_type": (
        ("adapter_type",),
        "Standard, Kohya LoCon, Kohya DyLoRA, and LyCORIS' LoCon, LoHa, LoKr, iA3, Diag-OFT and GLoRA are supported; "
        "others are not.",
    ),
    "network_module": (("adapter_type",), "networks.lora, networks.dylora, and lycoris.kohya with the algorithms below."),
    "network_args.algo": (("adapter_type",), "LyCORIS' algorithm: lora, locon, loha, lokr, ia3, diag-oft or glora."),
    **dict.fromkeys(
        ("dora_wd", "network_args.dora_wd"), (("adapter_type",), "DoRA, with LoRA and LoCon, with magnitudes per input.")
    ),
    "token_string": (
        ("trigger", "embedding_vectors"),
        "Of textual inversion: the trigger word, whose embedding is trained together with the LoRA.",
    ),
    "num_vectors_per_token": (
        ("embedding_vectors",),
        "Of textual inversion, with token_string: the number of vectors of the embedding.",
    ),
    "init_word": (("init_word",), "Of textual inversion, with token_string: the word that the embedding starts from."),
    **dict.fromkeys(
        ("network_args", "network_args_custom", "additional_parameters"), ((), "Each of its arguments is read separately.")
    ),
    "network_train": (("unet_lr", "text_encoder_lr"), "Of the first forms: whether U-Net or text encoder is trained."),
    "locon": (("adapter_type",), "Of early forms: LoCon, which also trains convolutions."),
    "lycoris_algo": (("adapter_type",), "LyCORIS' algorithm, in lora-scripts' form."),
    "fa": (("adapter_type",), "LoRA-FA, in LoRA_Easy_Training_Scripts, is not supported."),
    "model_train_type": ((), "In lora-scripts' form: sd-lora and sdxl-lora are supported."),
    "train_mode": ((), "In LoRA_Easy_Training_Scripts: a LoRA is trained."),
    "warmup_ratio": (("lr_warmup_steps",), "Share of all steps, in LoRA_Easy_Training_Scripts."),
    **dict.fromkeys(("prodigy_d0", "prodigy_d_coef"), (("optimizer_args",), "Of lora-scripts' form, only for Prodigy.")),
    "positive_prompts": (
        ("sample_prompts",),
        "The sample prompt of lora-scripts' form, with its size, CFG scale, steps and seed.",
    ),
    **dict.fromkeys(OF_THE_SAMPLE, (("sample_prompts",), "Part of the sample prompt of lora-scripts' form.")),
}
