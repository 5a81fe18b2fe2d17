"""SDXL."""

from __future__ import annotations

from lib_lora.families.ddpm import scaled_linear
from lib_lora.families.family import Family, Layout, TextEncoder, UNet

SDXL = Family(
    id="sdxl",
    name="SDXL",
    unet=UNet(
        channels=(320, 640, 1280),
        depths=(0, 2, 10),
        middle_depth=10,
        context=2048,
        linear=True,
        names="ldm",
        layout=Layout(side=9, middle=3, ends=1),
        reads_sizes=True,
    ),
    text_encoders=(
        TextEncoder("lora_te1", "conditioner.embedders.0.transformer.", layers=12, width=768, penultimate=True),
        TextEncoder("lora_te2", "conditioner.embedders.1.model.", layers=32, width=1280, penultimate=True, pools=True),
    ),
    latent_scale=0.13025,
    noise_process=scaled_linear,
    base_versions=("sdxl_base_v1-0", "sdxl_base_v1-0"),
    architectures=("stable-diffusion-xl-v1-base", "stable-diffusion-xl-v1-base"),
    version_starts=("sdxl_", "stable-diffusion-xl"),
    implementation="https://github.com/Stability-AI/generative-models",
    sd_version="SDXL",
    clip_skip=False,
    text_encoder_lr=0.0,
    enough_bytes=30 * 2**30,  # the weights alone are 5 GB in half precision
)
