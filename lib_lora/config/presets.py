"""Presets: values that go together, with a reason for each. Other options have their defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A value of a preset, and its reason."""

    name: str
    value: Any
    why: str


@dataclass(frozen=True)
class Preset:
    """A named starting point."""

    title: str
    text: str
    choices: tuple[Choice, ...]

    def settings(self) -> dict[str, Any]:
        """Option name -> value."""
        return {choice.name: choice.value for choice in self.choices}


_SOFT_END = Choice("lr_scheduler", "cosine", "The last steps are small, so the result depends less on where the run ends.")
_MIN_SNR = Choice("min_snr_gamma", 5.0, "Timesteps with little noise count less, so shapes are learned before fine detail.")
_COMPARE = Choice("save_every_n_epochs", 2, "Saves earlier versions, so that you can pick one that is not overtrained.")
_TUTORIAL = (
    Choice("rank", 128, "The tutorial's value: large, enough for fine detail; the file has about 150 MB."),
    Choice("alpha", 128.0, "Equal to the rank, so the LoRA has its full strength."),
    Choice("unet_lr", 1e-4, "The tutorial's value."),
    Choice("text_encoder_lr", 5e-5, "Half of the U-Net's, since the text encoder overfits sooner."),
    Choice("optimizer", "AdamW8bit", "Needs the package bitsandbytes and CUDA; without them choose AdamW."),
    Choice("lr_scheduler", "constant", "The tutorial's value."),
    Choice("clip_skip", 2, "Usual for anime checkpoints; choose 1 if the checkpoint is used without clip skip."),
    Choice("enable_bucket", False, "The tutorial crops every image to a square."),
    Choice("epochs", 1, "One epoch; the repeats decide the number of steps."),
    Choice("repeats", 150, "The tutorial's minimum of 1500 images per epoch: 150 repeats of 10 images."),
    Choice("seed", 1234, "The tutorial's value."),
    Choice("save_every_n_epochs", 1, "The tutorial's value."),
)

PRESETS: dict[str, Preset] = {
    "character": Preset(
        "Character",
        "One person or character, from 10 to 30 images with different clothes, poses and backgrounds.",
        (
            Choice("rank", 16, "Enough for one face and body."),
            Choice("alpha", 8.0, "Half of the rank: weaker, so a few epochs too many do less harm."),
            Choice("unet_lr", 1e-4, "The usual rate."),
            _SOFT_END,
            _MIN_SNR,
            _COMPARE,
        ),
    ),
    "style": Preset(
        "Style",
        "A style of drawing or photography, from 20 to 100 images of many subjects.",
        (
            Choice("rank", 32, "A style changes many layers a little."),
            Choice("alpha", 16.0, "Half of the rank."),
            Choice("unet_lr", 1e-4, "The usual rate."),
            Choice("text_encoder_lr", 2e-5, "A style is learned mostly by the U-Net."),
            Choice("repeats", 4, "There are more images than for a subject, so each is repeated less often."),
            Choice("caption_dropout_rate", 0.1, "Some images are trained without a caption, so the style does not depend on it."),
            Choice("noise_offset", 0.05, "Lets very dark and very bright styles be learned."),
            _SOFT_END,
            _MIN_SNR,
            _COMPARE,
        ),
    ),
    "object": Preset(
        "Object or concept",
        "A thing, a garment, a pet or a gesture, from 8 to 20 images.",
        (
            Choice("rank", 8, "Enough for one thing; a small rank learns less of the background."),
            Choice("alpha", 4.0, "Half of the rank."),
            Choice("unet_lr", 1e-4, "The usual rate."),
            Choice("epochs", 8, "Things are learned faster than faces."),
            _SOFT_END,
            _MIN_SNR,
            _COMPARE,
        ),
    ),
    "low_memory": Preset(
        "Low memory",
        "For GPUs that run out of memory with other settings; slower, but not worse.",
        (
            Choice("batch_size", 1, "One image at a time needs the least memory."),
            Choice("gradient_accumulation_steps", 2, "Two images per step: like a batch of two, without its memory."),
            Choice("gradient_checkpointing", "on", "Recomputes activations instead of keeping them in memory."),
            Choice("text_encoder_lr", 0.0, "Not training the text encoder saves its memory."),
            Choice("rank", 8, "A smaller LoRA, with a smaller optimizer state."),
            Choice("alpha", 8.0, "Equal to the rank."),
            Choice("vae_batch_size", 1, "Encodes images one at a time."),
            Choice("cache_latents", True, "Encodes images before the first step, while nothing else needs memory."),
        ),
    ),
    "tutorial": Preset(
        "Tutorial (kohya_ss, basic)",
        "Follows the basic settings file of a well-known kohya_ss video tutorial. Large and strong; the other presets are "
        "gentler.",
        (
            Choice("batch_size", 2, "The tutorial's value: two images per step."),
            Choice("mixed_precision", "bf16", "The tutorial's value; older GPUs need fp16, a CPU no."),
            Choice("save_precision", "bf16", "The tutorial's value."),
            *_TUTORIAL,
        ),
    ),
    "tutorial_low_vram": Preset(
        "Tutorial (kohya_ss, low VRAM)",
        "Follows the low-VRAM settings file of the same kohya_ss video tutorial.",
        (
            Choice("batch_size", 1, "The tutorial's value for small GPUs."),
            Choice("gradient_checkpointing", "on", "Recomputes activations instead of keeping them in memory."),
            Choice("mixed_precision", "fp16", "The tutorial's value for older GPUs."),
            Choice("save_precision", "fp16", "The tutorial's value."),
            *_TUTORIAL,
        ),
    ),
}
