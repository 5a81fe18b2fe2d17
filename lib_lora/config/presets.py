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


_SOFT_END = Choice("lr_scheduler", "cosine", "The last steps are small, so that the result hangs less on where the run ends.")
_MIN_SNR = Choice("min_snr_gamma", 5.0, "Nearly clean pictures count less, so that form is learned before grain.")
_COMPARE = Choice("save_every_n_epochs", 2, "Earlier files are kept, to pick the one that is not yet overdone.")
_TUTORIAL = (
    Choice("rank", 128, "The tutorial's value: large, so that nothing is too fine for it; the file has about 150 MB."),
    Choice("alpha", 128.0, "Equal to the rank, so that what is learned counts in full."),
    Choice("unet_lr", 1e-4, "The tutorial's value."),
    Choice("text_encoder_lr", 5e-5, "Half of the U-Net's, as the text encoder overlearns sooner."),
    Choice("optimizer", "AdamW8bit", "Needs the package bitsandbytes and CUDA; choose AdamW without them."),
    Choice("lr_scheduler", "constant", "The tutorial's value."),
    Choice("clip_skip", 2, "The habit of anime checkpoints; choose 1 where the checkpoint is used without clip skip."),
    Choice("enable_bucket", False, "The tutorial cuts every picture to a square."),
    Choice("epochs", 1, "One epoch; the number of repeats makes the steps."),
    Choice("repeats", 150, "1500 pictures shown are the tutorial's least: 150 repeats of 10 pictures."),
    Choice("seed", 1234, "The tutorial's value."),
    Choice("save_every_n_epochs", 1, "The tutorial's value."),
)

PRESETS: dict[str, Preset] = {
    "character": Preset(
        "Character",
        "One person or figure, from 10 to 30 pictures that differ in clothes, pose and place.",
        (
            Choice("rank", 16, "Enough for one face and figure."),
            Choice("alpha", 8.0, "Half of the rank: a gentle strength, which is forgiving of a few epochs too many."),
            Choice("unet_lr", 1e-4, "The usual rate."),
            _SOFT_END,
            _MIN_SNR,
            _COMPARE,
        ),
    ),
    "style": Preset(
        "Style",
        "A way of drawing or photographing, from 20 to 100 pictures of many subjects.",
        (
            Choice("rank", 32, "A style touches many layers a little."),
            Choice("alpha", 16.0, "Half of the rank."),
            Choice("unet_lr", 1e-4, "The usual rate."),
            Choice("text_encoder_lr", 2e-5, "A style is in the picture, hardly in the words."),
            Choice("repeats", 4, "There are more pictures than of a subject, so each is shown less often."),
            Choice(
                "caption_dropout_rate", 0.1, "Some pictures are shown without words, so that the style does not hang on them."
            ),
            Choice("noise_offset", 0.05, "Styles may be very dark or very bright; this lets them be learned."),
            _SOFT_END,
            _MIN_SNR,
            _COMPARE,
        ),
    ),
    "object": Preset(
        "Object or concept",
        "A thing, a garment, a pet or a gesture, from 8 to 20 pictures.",
        (
            Choice("rank", 8, "One thing needs little room, and a small rank learns less of the background."),
            Choice("alpha", 4.0, "Half of the rank."),
            Choice("unet_lr", 1e-4, "The usual rate."),
            Choice("epochs", 8, "A thing is learned sooner than a face."),
            _SOFT_END,
            _MIN_SNR,
            _COMPARE,
        ),
    ),
    "low_memory": Preset(
        "Low memory",
        "For a GPU on which other settings run out of memory; slower, but not worse.",
        (
            Choice("batch_size", 1, "One picture at a time needs least."),
            Choice("gradient_accumulation_steps", 2, "Two pictures make one step, as a batch of two without its memory."),
            Choice("gradient_checkpointing", "on", "Parts are computed twice instead of being kept."),
            Choice("text_encoder_lr", 0.0, "The text encoder is left alone, so that nothing of it has to be kept."),
            Choice("rank", 8, "A smaller LoRA, with smaller states of the optimizer."),
            Choice("alpha", 8.0, "Equal to the rank."),
            Choice("vae_batch_size", 1, "Pictures are encoded one at a time."),
            Choice("cache_latents", True, "Pictures are encoded before the first step, when nothing else needs room."),
        ),
    ),
    "tutorial": Preset(
        "Tutorial (kohya_ss, basic)",
        "Follows the basic settings file of a well-known video for kohya_ss. Large and bold; the others are gentler.",
        (
            Choice("batch_size", 2, "The tutorial's value: two pictures a step."),
            Choice("mixed_precision", "bf16", "The tutorial's value; older GPUs need fp16, a CPU no."),
            Choice("save_precision", "bf16", "The tutorial's value."),
            *_TUTORIAL,
        ),
    ),
    "tutorial_low_vram": Preset(
        "Tutorial (kohya_ss, low VRAM)",
        "Follows the low-VRAM settings file of the same video for kohya_ss.",
        (
            Choice("batch_size", 1, "The tutorial's value for small GPUs."),
            Choice("gradient_checkpointing", "on", "Parts are computed twice instead of being kept."),
            Choice("mixed_precision", "fp16", "The tutorial's value for older GPUs."),
            Choice("save_precision", "fp16", "The tutorial's value."),
            *_TUTORIAL,
        ),
    ),
}
