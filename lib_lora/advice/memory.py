"""A rough account of a run's GPU memory, good enough to choose a batch size before a model is counted (`estimate/`).

The figures are those of docs/memory.md: linear in the number of pixels of a batch, in bf16, rank 16, AdamW.
"""

from __future__ import annotations

from typing import NamedTuple

from lib_lora.config.groups import TrainConfig
from lib_lora.families.family import Family

_SHARE, _LEAST_GB = 0.1, 0.4  # of the memory that stays free, for the driver, fragments and the desktop
_PICTURE = 512 * 512  # pixels of one unit


class _Figures(NamedTuple):
    """GiB: `held` in any case and `per` unit of pixels, with and without gradient checkpointing, and for encoding an image.

    `text`: what training the text encoders adds.
    """

    checkpointed: tuple[float, float]
    plain: tuple[float, float]
    encoding: tuple[float, float]
    text: float


_SD = _Figures((2.25, 0.4), (4.4, 1.07), (2.2, 0.77), 0.0)
_SD2 = _Figures((2.7, 0.4), (4.85, 1.07), (2.65, 0.77), 0.1)
_SDXL = _Figures((6.9, 0.24), (13.2, 2.0), (6.7, 0.77), 0.45)
_FIGURES = {"sd1": _SD, "sd2": _SD2, "sdxl": _SDXL}


def needed_gb(config: TrainConfig, family: Family) -> float:
    """GiB that the run holds at its peak, with the model. `auto` checkpointing counts as on."""
    figures = _FIGURES.get(family.id, _SDXL)
    data, rate = config.data, config.optimizer.text_encoder_lr
    units = data.resolution * data.height / _PICTURE
    held, per = figures.plain if config.precision.gradient_checkpointing == "off" else figures.checkpointed
    text = figures.text if (family.text_encoder_lr if rate is None else rate) > 0 else 0.0
    encoding, per_encoded = figures.encoding
    return max(held + per * units * data.batch_size + text, encoding + per_encoded * units * data.vae_batch_size)


def usable_gb(free_gb: float) -> float:
    """GiB of `free_gb` that a run should be planned with."""
    return free_gb - max(free_gb * _SHARE, _LEAST_GB)
