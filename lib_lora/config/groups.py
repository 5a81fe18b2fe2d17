"""THE list of options: one frozen dataclass per group, composed into `TrainConfig`.

To add an option, add a field here and use it in the room it belongs to; form, command line, validation, kohya import and
the documents follow. Names are unique over all groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lib_lora.config.objective import ObjectiveConfig
from lib_lora.config.optimizer import OptimizerConfig
from lib_lora.config.options import Option, option, options_of, parse_value
from lib_lora.config.text import TextConfig
from lib_lora.errors import ConfigError

MixedPrecision = Literal["auto", "no", "fp16", "bf16"]
SavePrecision = Literal["fp16", "bf16", "float"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are cut."""

    data: tuple[str, ...] = option(
        (),
        label="Image folder",
        kohya="train_data_dir",
        help="A folder of images, or the parent of folders named N_name (each image is then shown N times per epoch).",
    )
    resolution: int = option(
        512,
        label="Resolution",
        kohya="resolution",
        ge=64,
        le=2048,
        help="Training size in pixels; images are scaled and cropped to about this area. A multiple of 8. 512 for SD 1.x.",
    )
    batch_size: int = option(
        1,
        label="Batch size",
        kohya="train_batch_size",
        ge=1,
        le=64,
        help="Images per step. Larger is smoother, needs more memory, and makes fewer steps.",
    )
    repeats: int = option(
        10,
        label="Repeats",
        kohya=None,
        ge=1,
        le=10000,
        help="How often each image is shown per epoch, where the folder's name does not say it (N_name).",
    )
    enable_bucket: bool = option(
        True,
        label="Keep aspect ratios",
        kohya="enable_bucket",
        place="advanced",
        help="Sort images into buckets of similar shape, so that little is cropped. Off: every image is cropped to a square.",
    )
    min_bucket_reso: int = option(
        256,
        label="Smallest bucket side",
        kohya="min_bucket_reso",
        ge=64,
        le=2048,
        place="advanced",
        help="No side of a bucket is shorter than this, in pixels.",
    )
    max_bucket_reso: int = option(
        1024,
        label="Largest bucket side",
        kohya="max_bucket_reso",
        ge=64,
        le=4096,
        place="advanced",
        help="No side of a bucket is longer than this, in pixels.",
    )
    bucket_reso_steps: int = option(
        64,
        label="Bucket step",
        kohya="bucket_reso_steps",
        ge=8,
        le=512,
        place="advanced",
        help="Sides of buckets are multiples of this, in pixels. A multiple of 8.",
    )
    bucket_no_upscale: bool = option(
        False,
        label="Never enlarge images",
        kohya="bucket_no_upscale",
        place="advanced",
        help="Small images get a bucket of their own size instead of being enlarged.",
    )


@dataclass(frozen=True)
class AdapterConfig:
    """The LoRA itself."""

    rank: int = option(
        16,
        label="Rank",
        kohya="network_dim",
        ge=1,
        le=1024,
        help="Size of the LoRA. 8 to 32 for a subject, more for a style; file size and memory grow with it.",
    )
    alpha: float = option(
        16.0,
        label="Alpha",
        kohya="network_alpha",
        ge=0.001,
        le=1024,
        help="Strength of what is learned: the LoRA is scaled by alpha / rank. Equal to rank, or half of it.",
    )


@dataclass(frozen=True)
class PrecisionConfig:
    """Number formats."""

    mixed_precision: MixedPrecision = option(
        "auto",
        label="Mixed precision",
        kohya="mixed_precision",
        place="advanced",
        help="auto: bf16 where the device has it, else fp16 on CUDA, and full precision on a CPU.",
    )
    save_precision: SavePrecision = option(
        "fp16",
        label="Precision of the file",
        kohya="save_precision",
        place="advanced",
        help="fp16 is what most LoRA files use; float doubles the size.",
    )


@dataclass(frozen=True)
class RunConfig:
    """How long, and what becomes of the result."""

    name: str = option(
        "", label="Name", kohya="output_name", help="Name of the LoRA: the file NAME.safetensors, and <lora:NAME:1> in a prompt."
    )
    epochs: int = option(
        10,
        label="Epochs",
        kohya="max_train_epochs",
        ge=1,
        le=100000,
        help="How often the whole set is gone through. Not used when Steps is set.",
    )
    steps: int = option(
        0, label="Steps", kohya="max_train_steps", ge=0, le=10000000, help="Exact number of optimizer steps; 0 means: by Epochs."
    )
    seed: int = option(
        42, label="Seed", kohya="seed", ge=0, le=2**32 - 1, help="The same seed, images and settings give the same LoRA."
    )
    overwrite: bool = option(
        False,
        label="Overwrite",
        kohya=None,
        help="Replace a LoRA of this name. The old file is kept as a backup until the new one is done.",
    )
    preview_steps: int = option(
        20,
        label="Preview steps",
        kohya=None,
        ge=0,
        le=150,
        place="advanced",
        help="Sampling steps of the preview picture for the card; 0 makes none.",
    )
    out: str = option(
        "",
        label="Output folder",
        kohya="output_dir",
        place="none",
        help="Folder that the LoRA is written to. In the webui it is always the webui's own LoRA folder.",
    )
    checkpoint: str = option(
        "",
        label="Checkpoint",
        kohya="pretrained_model_name_or_path",
        place="none",
        help="Model file to train on. In the webui it is always the loaded checkpoint.",
    )


def _group(cls: type, title: str) -> Any:
    """A group of options; `title` stands above it in the form and in the documents."""
    return field(default_factory=cls, metadata={"title": title})


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run. Never changed after validation; derived numbers live in the plan."""

    data: DataConfig = _group(DataConfig, "Images and buckets")
    text: TextConfig = _group(TextConfig, "Captions")
    adapter: AdapterConfig = _group(AdapterConfig, "LoRA")
    optimizer: OptimizerConfig = _group(OptimizerConfig, "Learning")
    objective: ObjectiveConfig = _group(ObjectiveConfig, "Loss and noise")
    precision: PrecisionConfig = _group(PrecisionConfig, "Number formats")
    run: RunConfig = _group(RunConfig, "Run")

    def value(self, opt: Option) -> Any:
        """What this configuration holds for `opt`."""
        return getattr(getattr(self, opt.group), opt.name)

    def to_flat(self) -> dict[str, Any]:
        """Option name -> value, ready for JSON."""
        return {opt.name: self.value(opt) for opt in all_options()}


def all_options() -> list[Option]:
    """Every option of every group, in the order of declaration."""
    return [opt for group in dataclasses.fields(TrainConfig) for opt in options_of(group.name, _group_class(group.name))]


def group_titles() -> dict[str, str]:
    """Group name -> its title, in order."""
    return {group.name: group.metadata["title"] for group in dataclasses.fields(TrainConfig)}


def build_config(flat: Mapping[str, Any]) -> TrainConfig:
    """A configuration from option names and raw values; what is absent has its default.

    Raises:
        ConfigError: with a sentence for every unknown name and every illegal value.
    """
    known = {opt.name: opt for opt in all_options()}
    problems = [f"Option {name!r} does not exist." for name in flat if name not in known]
    groups: dict[str, dict[str, Any]] = {group.name: {} for group in dataclasses.fields(TrainConfig)}
    for name, raw in flat.items():
        if name in known:
            try:
                groups[known[name].group][name] = parse_value(known[name], raw)
            except ValueError as error:
                problems.append(str(error))
    if problems:
        raise ConfigError(problems)
    return TrainConfig(**{name: _group_class(name)(**values) for name, values in groups.items()})


def _group_class(name: str) -> type:
    classes: dict[str, type] = {
        "data": DataConfig,
        "text": TextConfig,
        "adapter": AdapterConfig,
        "optimizer": OptimizerConfig,
        "objective": ObjectiveConfig,
        "precision": PrecisionConfig,
        "run": RunConfig,
    }
    return classes[name]
