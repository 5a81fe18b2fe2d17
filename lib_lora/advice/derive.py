"""Situation -> settings, each with one sentence why. What the user pinned stays, and the others follow it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from lib_lora.advice.draft import Draft
from lib_lora.advice.memory import needed_gb, usable_gb
from lib_lora.advice.situation import Situation
from lib_lora.advice.training_length import choose_files, choose_length
from lib_lora.config.groups import TrainConfig, read_config
from lib_lora.config.names import name_problem
from lib_lora.config.optimizer_specs import optimizer_spec
from lib_lora.config.presets import Choice
from lib_lora.errors import DatasetError
from lib_lora.plan import Length

RARE = "ohwx"  # a token of CLIP's that hardly any caption had
USUAL_RATE = 1e-4
NOTHING: Mapping[str, Any] = MappingProxyType({})
_RANKS = {"person": 16, "style": 32, "object": 8}
_MANY = 200  # images, from which on a LoRA may be larger
_SMALL_PHOTOS = 768  # SDXL is trained at this side if most photos are smaller
_WIDEST = 2  # times the resolution that the longer side of a bucket may have
_BATCHES = ((40, 4), (8, 2), (0, 1))  # images, and the batch size from that number on
_HELD_OUT_FROM = 20  # images


@dataclass(frozen=True)
class Derived:
    """`choices`: the settings that were chosen, with reasons, in the order of the options. `config`: with the pinned ones.

    `length`: of the run; None without images, or if one fits no bucket.
    """

    choices: tuple[Choice, ...]
    config: TrainConfig
    length: Length | None

    def settings(self) -> dict[str, Any]:
        """Option name -> chosen value."""
        return {choice.name: choice.value for choice in self.choices}


def derive(situation: Situation, pinned: Mapping[str, Any] = NOTHING) -> Derived:
    """The settings for a situation.

    Args:
        situation: answers and facts.
        pinned: option name -> value, raw or parsed, that the user set; it stays, legal or not.
    """
    draft = Draft(pinned)
    if not draft.config.run.resume:  # else the settings are those of the state
        for choose in (_sizes, _optimizer, _rates, _rank, _memory, _formats, choose_length, _captions, _objective, choose_files):
            choose(draft, situation)
    choices = draft.choices()
    config = read_config({**{choice.name: choice.value for choice in choices}, **pinned})[0]
    try:
        return Derived(choices, config, situation.length(config))
    except DatasetError:
        return Derived(choices, config, None)


def _sizes(draft: Draft, situation: Situation) -> None:
    family = situation.family
    if family.id == "sdxl":
        side = statistics.median(photo.size.area**0.5 for photo in situation.photos) if situation.photos else 1024
        if side < _SMALL_PHOTOS:
            draft.choose("resolution", 768, "Most images are small, and enlarged to 1024 they would teach blur.")
        else:
            draft.choose("resolution", 1024, "SDXL was made for 1024 pixels.")
    elif situation.predicts_v and family.is_v2:
        draft.choose("resolution", 768, "SD 2.x checkpoints that predict v were made for 768 pixels.")
    else:
        draft.choose("resolution", 512, f"{family.name} was made for 512 pixels.")
    data = draft.config.data
    shortest, longest = min(data.resolution, data.height), max(data.resolution, data.height)
    if shortest < data.min_bucket_reso:
        low = max(shortest // 2 // 64 * 64, 64)
        draft.choose("min_bucket_reso", low, "The resolution is small, so sides of buckets must be allowed to be.")
    if longest * _WIDEST > data.max_bucket_reso:
        high = min(longest * _WIDEST, 4096)
        draft.choose("max_bucket_reso", high, "Tall and wide images keep their shape, and little of them is cut off.")


def _optimizer(draft: Draft, situation: Situation) -> None:
    if draft.config.precision.full_fp16 and situation.eight_bit:
        draft.choose("optimizer", "AdamW8bit", "It works with a LoRA in fp16, which AdamW does not.")
    else:
        draft.choose("optimizer", "AdamW", "The safe choice, which needs no further package.")
    optimizer = draft.config.optimizer
    if optimizer.optimizer.lower() == "adafactor" and not optimizer.optimizer_args:
        draft.choose("lr_scheduler", "adafactor", "AdaFactor sets its own learning rate.")
    else:
        reason = "The last steps are small, so the result depends less on where the run ends."
        draft.choose("lr_scheduler", "cosine", reason)


def _rates(draft: Draft, situation: Situation) -> None:
    family, name = situation.family, draft.config.optimizer.optimizer
    spec = optimizer_spec(name)
    if spec.one_rate:
        draft.choose("unet_lr", 1.0, f"{name} finds the learning rate itself and expects 1.")
    elif "lion" in spec.attribute.lower():
        draft.choose("unet_lr", USUAL_RATE / 3, f"{name} needs about a third of AdamW's rate.")
    else:
        draft.choose("unet_lr", USUAL_RATE, "The usual rate.")
    rate = draft.config.optimizer.unet_lr
    if family.text_encoder_lr == 0 and rate > 0:
        draft.choose("text_encoder_lr", 0.0, "Training only the U-Net is usual for this model, and needs less memory.")
    elif rate == 0:
        rate = 1.0 if spec.one_rate else USUAL_RATE / 2
        draft.choose("text_encoder_lr", rate, "The U-Net is not trained, so the text encoder is.")
    elif spec.one_rate:
        draft.choose("text_encoder_lr", rate, "The optimizer uses one learning rate for everything.")
    elif situation.kind == "style":
        draft.choose("text_encoder_lr", rate / 5, "A style is learned mostly by the U-Net.")
    else:
        draft.choose("text_encoder_lr", rate / 2, "Half of the U-Net's, since the text encoder overfits sooner.")
    if spec.one_rate and draft.config.embedding.embedding_vectors:
        draft.choose("embedding_lr", rate, "The optimizer uses one learning rate for everything.")


def _rank(draft: Draft, situation: Situation) -> None:
    if draft.config.adapter.network_weights:
        return  # those of the file
    many = len(situation.photos) >= _MANY
    rank = _RANKS[situation.kind] * (2 if many else 1)
    reasons = {
        "person": "Enough for one face and body.",
        "style": "A style changes many layers a little.",
        "object": "Enough for one thing; a small rank learns less of the background.",
    }
    draft.choose("rank", rank, "There are many images, so there is more to learn." if many else reasons[situation.kind])
    half = draft.config.adapter.rank / 2
    draft.choose("alpha", half, "Half of the rank: weaker, so a few epochs too many do less harm.")


def _memory(draft: Draft, situation: Situation) -> None:
    """Batch size, accumulation and checkpointing: the first combination that fits, the fastest first."""
    count = len(situation.photos)
    wanted = next(batch for least, batch in _BATCHES if count >= least)
    batch, on = _fitting(draft, situation, wanted)
    if batch == wanted == 1:
        draft.choose("batch_size", 1, "There are few images, so each gets a step of its own.")
    elif batch == wanted:
        draft.choose("batch_size", batch, f"{count} images are enough for steps of {batch}, which are smoother.")
    else:
        draft.choose("batch_size", batch, "More images at once would not fit into the free memory.")
    used = draft.config.data.batch_size
    if used < wanted and not draft.is_pinned("batch_size"):
        more = wanted // used
        reason = f"{more} batches make one step: like a batch of {more * used}, without its memory."
        draft.choose("gradient_accumulation_steps", more, reason)
    if situation.free_gb is None or situation.device != "cuda":
        reason = "Decided when the run starts, by the memory that the device has."
        draft.choose("gradient_checkpointing", "auto", reason)
    elif on:
        draft.choose("gradient_checkpointing", "on", "Recomputes activations instead of keeping them in memory.")
    else:
        draft.choose("gradient_checkpointing", "off", "The free memory is enough without it, and steps are faster.")


def _formats(draft: Draft, situation: Situation) -> None:
    full = draft.config.precision.full_fp16, draft.config.precision.full_bf16
    if any(full):
        draft.choose("mixed_precision", "fp16" if full[0] else "bf16", "The LoRA itself is trained in this format.")
    else:
        draft.choose("mixed_precision", "auto", "The most exact format that the device computes quickly.")
    draft.choose("save_precision", "fp16", "Every program reads it, and it is exact enough for a finished LoRA.")
    data = draft.config.data
    if data.random_crop or data.color_aug:
        draft.choose("cache_latents", False, "Images change every time, so each is encoded at every step.")
    else:
        draft.choose("cache_latents", True, "Encodes images before the first step, while nothing else needs memory.")


def _fitting(draft: Draft, situation: Situation, wanted: int) -> tuple[int, bool]:
    """Batch size and whether checkpointing is on; the least if nothing fits."""
    if situation.free_gb is None or situation.device != "cuda":
        return wanted, True
    sizes = [wanted >> halved for halved in range(wanted.bit_length())]
    for batch, state in ((sizes[0], "off"), *((size, "on") for size in sizes)):
        tried = draft.tried({"batch_size": batch, "gradient_checkpointing": state})
        if needed_gb(tried, situation.family) <= usable_gb(situation.free_gb):
            return batch, state == "on"
    return 1, True


def _captions(draft: Draft, situation: Situation) -> None:
    if situation.name and name_problem(situation.name) is None:
        draft.choose(
            "trigger", trigger_for(situation.name), "Made of the name, with a word in front that the model hardly knows."
        )
    tags = situation.captions == "tags"
    if tags:
        draft.choose("shuffle_caption", True, "The captions are tags, and their order should not matter.")
    else:
        reason = "The captions are sentences, whose order matters."
        draft.choose(
            "shuffle_caption", False, reason if situation.captions == "sentences" else "There are no captions to shuffle."
        )
    if tags and not draft.config.text.trigger:
        draft.choose("keep_tokens", 1, "The first tag, which usually names the subject, stays in front.")
    if situation.longest_caption > 150:
        draft.choose("max_token_length", "225", "The longest caption has more than 150 tokens.")
    elif situation.longest_caption > 75:
        draft.choose("max_token_length", "150", "The longest caption has more than 75 tokens.")
    if situation.kind == "style" and situation.captions != "none":
        reason = "Some images are trained without a caption, so the style does not depend on it."
        draft.choose("caption_dropout_rate", 0.1, reason)
    if situation.kind == "style":
        draft.choose("flip_aug", True, "A style is the same in a mirror, so every image counts twice.")
    elif situation.kind == "person":
        draft.choose("flip_aug", False, "Faces are not symmetric.")
    else:
        draft.choose("flip_aug", False, "Lettering and one-sided shapes must not be mirrored.")


def _objective(draft: Draft, situation: Situation) -> None:
    if not draft.config.objective.debiased_estimation_loss:
        reason = "Timesteps with little noise count less, so shapes are learned before fine detail."
        draft.choose("min_snr_gamma", 5.0, reason)
    if situation.kind == "style" and not draft.config.objective.multires_noise_iterations:
        draft.choose("noise_offset", 0.05, "Lets very dark and very bright styles be learned.")
    if len(situation.photos) >= _HELD_OUT_FROM:
        reason = "A tenth of the images is held out; their loss shows which epoch is best."
        draft.choose("validation_split", 0.1, reason)
    else:
        draft.choose("validation_split", 0.0, "With so few images each one is needed for training.")


def trigger_for(name: str) -> str:
    """A trigger word for a LoRA of this name."""
    words = re.sub(r"[^\w]+", "_", name.casefold()).strip("_")
    return words if RARE in words.split("_") else f"{RARE}_{words}".strip("_")
