"""Which options a run reads only when others ask for it: one table.

What no part of a run reads refuses nothing: neither the bounds of the option nor a rule over several look at it. That it has no
effect is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.data import DataConfig
from lib_lora.config.embedding import EmbeddingConfig
from lib_lora.config.objective import BENT, ObjectiveConfig
from lib_lora.config.optimizer import OptimizerConfig
from lib_lora.config.optimizers import optimizer_spec
from lib_lora.config.run import RunConfig
from lib_lora.config.text import TextConfig


class Settings(Protocol):
    """The groups of options; `TrainConfig` is one."""

    @property
    def data(self) -> DataConfig: ...
    @property
    def text(self) -> TextConfig: ...
    @property
    def adapter(self) -> AdapterConfig: ...
    @property
    def embedding(self) -> EmbeddingConfig: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def objective(self) -> ObjectiveConfig: ...
    @property
    def run(self) -> RunConfig: ...


@dataclass(frozen=True)
class Reading:
    """Options that are read only where `read` says so; else nothing reads them, `since` …, which goes without saying if empty."""

    names: tuple[str, ...]
    read: Callable[[Settings], bool]
    since: str


def tags_move(text: TextConfig) -> bool:
    """Whether a caption is taken apart into tags."""
    return bool(text.shuffle_caption or text.token_warmup_step or text.caption_tag_dropout_rate)


def samples_are_drawn(run: RunConfig) -> bool:
    """Whether the sample prompts may be drawn at all, as far as the options alone tell it."""
    by_steps = run.sample_every_n_steps and (not run.steps or run.sample_every_n_steps <= run.steps)
    by_epochs = run.sample_every_n_epochs and (run.steps or run.sample_every_n_epochs <= run.epochs)
    return bool(run.sample_at_first or by_steps or by_epochs)


def _has_schedule(optimizer: OptimizerConfig) -> bool:
    return not optimizer_spec(optimizer.optimizer).schedule_free


def _of_schedule(*names: str) -> Callable[[Settings], bool]:
    def read(config: Settings) -> bool:
        optimizer = config.optimizer
        return _has_schedule(optimizer) and not optimizer.lr_scheduler_type and optimizer.lr_scheduler in names

    return read


def _saves_epochs(run: RunConfig) -> bool:
    return bool(run.save_every_n_epochs or run.save_n_epoch_ratio)


_NO_VECTORS = "Embedding vectors (embedding_vectors) is 0"
_NO_FACTORS = "neither Ranks per block (block_dims) nor rate factors (down_lr_weight …) are given"
_OTHER_SCHEDULE = "the learning rate schedule does not use it"

TABLE: tuple[Reading, ...] = (
    Reading(("min_bucket_reso", "max_bucket_reso", "bucket_reso_steps", "bucket_no_upscale"),
            lambda config: config.data.enable_bucket, "Keep aspect ratios (enable_bucket) is off"),
    Reading(("cache_latents_to_disk",), lambda config: config.data.cache_latents, "Keep latents (cache_latents) is off"),
    Reading(("prior_loss_weight",), lambda config: any(path.strip() for path in config.data.reg_data),
            "there is no Regularisation folder (reg_data)"),
    Reading(("mask_data",), lambda config: config.data.masked_loss, "Mask images (masked_loss) is off"),
    Reading(("validation_seed", "validate_every_n_steps", "validate_every_n_epochs", "max_validation_steps"),
            lambda config: config.data.validation_split > 0, "no images are held out (validation_split)"),
    Reading(("keep_tokens", "keep_tokens_separator"), lambda config: tags_move(config.text),
            "tags are neither shuffled nor dropped"),
    Reading(("caption_separator",), lambda config: tags_move(config.text) or bool(config.text.secondary_separator),
            "tags are neither shuffled nor dropped"),
    Reading(("token_warmup_min",), lambda config: config.text.token_warmup_step > 0, "Tag warm-up (token_warmup_step) is 0"),
    Reading(("conv_alpha",), lambda config: config.adapter.trains_convolutions, "convolutions are not trained (conv_dim)"),
    Reading(("conv_block_dims",), lambda config: config.adapter.has_block_values, _NO_FACTORS),
    Reading(("block_alphas",), lambda config: config.adapter.has_block_alphas, f"{_NO_FACTORS}, or the type has no alpha"),
    Reading(("conv_block_alphas",), lambda config: config.adapter.has_block_alphas and bool(config.adapter.conv_block_dims),
            "Ranks of convolutions per block (conv_block_dims) are not given, or the type has no alpha"),
    Reading(("block_lr_zero_threshold",), lambda config: config.adapter.has_factors,
            "no rate factors (down_lr_weight …) are given"),
    Reading(("base_weights_multiplier",), lambda config: bool(config.adapter.base_weights),
            "no files are Merged first (base_weights)"),
    Reading(("factor", "full_matrix", "decompose_both"), lambda config: config.adapter.adapter_type == "lokr",
            "Type (adapter_type) is not lokr"),
    Reading(("lr_scheduler_type",), lambda config: _has_schedule(config.optimizer), "the optimizer needs no schedule"),
    Reading(("lr_scheduler",), lambda config: _has_schedule(config.optimizer) and not config.optimizer.lr_scheduler_type,
            "the optimizer needs no schedule, or Other schedule (lr_scheduler_type) is given"),
    Reading(("lr_scheduler_args",), lambda config: _has_schedule(config.optimizer) and (
        bool(config.optimizer.lr_scheduler_type) or config.optimizer.lr_scheduler != "adafactor"), _OTHER_SCHEDULE),
    Reading(("lr_warmup_steps",), lambda config: _has_schedule(config.optimizer) and (
        bool(config.optimizer.lr_scheduler_type) or config.optimizer.lr_scheduler != "piecewise_constant"), _OTHER_SCHEDULE),
    Reading(("lr_decay_steps",), _of_schedule("warmup_stable_decay"), _OTHER_SCHEDULE),
    Reading(("lr_scheduler_num_cycles",), _of_schedule("cosine_with_restarts", "cosine_with_min_lr", "warmup_stable_decay"),
            _OTHER_SCHEDULE),
    Reading(("lr_scheduler_power",), _of_schedule("polynomial"), _OTHER_SCHEDULE),
    Reading(("lr_scheduler_timescale",), _of_schedule("inverse_sqrt"), _OTHER_SCHEDULE),
    Reading(("lr_scheduler_min_lr_ratio",), _of_schedule("cosine_with_min_lr", "warmup_stable_decay"), _OTHER_SCHEDULE),
    Reading(("stop_text_encoder_training", "loraplus_text_encoder_lr_ratio"),
            lambda config: config.optimizer.text_encoder_lr != 0, "Learning rate, text encoder (text_encoder_lr) is 0"),
    Reading(("loraplus_unet_lr_ratio",), lambda config: config.optimizer.unet_lr > 0, "Learning rate, U-Net (unet_lr) is 0"),
    Reading(("init_word", "stop_embedding_training", "embedding_lr"), lambda config: config.embedding.embedding_vectors > 0,
            _NO_VECTORS),
    Reading(("huber_c", "huber_schedule"), lambda config: config.objective.loss_type in BENT,
            "Loss (loss_type) is neither huber nor smooth_l1"),
    Reading(("huber_scale",), lambda config: config.objective.loss_type in BENT and config.objective.huber_schedule != "snr",
            "only huber and smooth_l1 with Huber schedule (huber_schedule) exponential or constant use it"),
    Reading(("noise_offset_random_strength", "adaptive_noise_scale"), lambda config: config.objective.noise_offset > 0,
            "Noise offset (noise_offset) is 0"),
    Reading(("multires_noise_discount",), lambda config: config.objective.multires_noise_iterations > 0,
            "Multires noise layers (multires_noise_iterations) is 0"),
    Reading(("ip_noise_gamma_random_strength",), lambda config: config.objective.ip_noise_gamma > 0,
            "Input perturbation (ip_noise_gamma) is 0"),
    Reading(("epochs",), lambda config: config.run.steps == 0, ""),
    Reading(("save_every_n_epochs",), lambda config: config.run.save_n_epoch_ratio == 0,
            "Saves in between (save_n_epoch_ratio) says how often"),
    Reading(("save_last_n_epochs",), lambda config: _saves_epochs(config.run),
            "nothing is saved by epochs (save_every_n_epochs)"),
    Reading(("save_last_n_steps",), lambda config: config.run.save_every_n_steps > 0,
            "nothing is saved by steps (save_every_n_steps)"),
    Reading(("save_last_n_epochs_state",), lambda config: config.run.save_state and _saves_epochs(config.run),
            "no state is saved by epochs (save_state, save_every_n_epochs)"),
    Reading(("save_last_n_steps_state",), lambda config: config.run.save_state and config.run.save_every_n_steps > 0,
            "no state is saved by steps (save_state, save_every_n_steps)"),
    Reading(("sample_prompts",), lambda config: samples_are_drawn(config.run),
            "no sample is drawn (sample_every_n_steps, sample_every_n_epochs, sample_at_first)"),
)  # fmt: skip
_BY_NAME = {name: reading for reading in TABLE for name in reading.names}


def is_read(config: Settings, name: str) -> bool:
    """Whether any part of a run with these settings reads the option `name`."""
    return name not in _BY_NAME or _BY_NAME[name].read(config)


def unread(config: Settings) -> list[tuple[str, str]]:
    """Name and reason of every option that nothing reads and whose reason is worth telling."""
    return [(name, reading.since) for name, reading in _BY_NAME.items() if reading.since and not reading.read(config)]
