"""Stable Diffusion 2.x."""

from __future__ import annotations

from dataclasses import replace

from lib_lora.families.ddpm import scaled_linear
from lib_lora.families.family import Family, TextEncoder
from lib_lora.families.sd1 import SD1

SD2 = Family(
    id="sd2",
    name="SD 2.x",
    unet=replace(SD1.unet, context=1024, linear=True),
    text_encoders=(TextEncoder("lora_te", "cond_stage_model.model.", layers=23, width=1024, unread=1),),
    latent_scale=0.18215,
    noise_process=scaled_linear,
    base_versions=("sd_v2", "sd_v2_v"),
    architectures=("stable-diffusion-v2-512", "stable-diffusion-v2-768-v"),
    version_starts=("sd_v2", "stable-diffusion-v2"),
    implementation="diffusers",
    sd_version="SD2",
    is_v2=True,
)
