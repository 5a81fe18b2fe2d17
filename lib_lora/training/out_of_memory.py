"""Explains out-of-memory errors of torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lib_lora.config.groups import TrainConfig, options_by_name
from lib_lora.errors import TrainLoraError
from lib_lora.model.base import BaseModel


class OutOfMemoryError(TrainLoraError):
    """The GPU does not have enough memory for these settings."""


STEP = ("batch_size", "resolution", "rank")  # options that lower the memory of a step
ENCODING = ("vae_batch_size", "resolution")


@contextmanager
def explained(base: BaseModel, config: TrainConfig, what: str, lower: Sequence[str] = STEP) -> Iterator[None]:
    """Run the block; `what` names its work, `lower` the options that reduce its memory.

    Raises:
        OutOfMemoryError: instead of torch's.
        HostChanged: instead of torch's RuntimeError, if the model was moved or replaced meanwhile.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        flat, options = config.to_flat(), options_by_name()
        values = [f"{options[name].title} is {flat[name]}" for name in lower]
        raise OutOfMemoryError(
            f"The GPU ran out of memory at {what}: {', '.join(values[:-1])} and {values[-1]}; lower one of them, or close "
            "what else uses the GPU. The checkpoint is as it was."
        ) from error
    except RuntimeError:
        base.verify()
        raise
