"""Stable Diffusion 1.x."""

from __future__ import annotations

from lib_lora.families.ddpm import scaled_linear
from lib_lora.families.family import Family, Layout, TextEncoder, UNet

SD1 = Family(
    id="sd1",
    name="SD 1.x",
    unet=UNet(
        channels=(320, 640, 1280, 1280),
        depths=(1, 1, 1, 0),
        middle_depth=1,
        context=768,
        linear=False,
        names="diffusers",
        layout=Layout(side=12, middle=1, ends=0),
    ),
    text_encoders=(TextEncoder("lora_te", "cond_stage_model.transformer.", layers=12, width=768),),
    latent_scale=0.18215,
    noise_process=scaled_linear,
    base_versions=("sd_v1", "sd_v1_v"),
    architectures=("stable-diffusion-v1", "stable-diffusion-v1"),
    version_starts=("sd_v1", "stable-diffusion-v1"),
    implementation="diffusers",
    sd_version="SD1",
)
