"""Why torch failed, in words, where the reason is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from lib_lora.config.groups import TrainConfig, options_by_name
from lib_lora.errors import TrainLoraError
from lib_lora.model.base import BaseModel


class OutOfMemoryError(TrainLoraError):
    """The GPU has not enough memory for these settings."""


STEP = ("batch_size", "resolution", "rank")  # what lowers the memory of a step
ENCODING = ("vae_batch_size", "resolution")


@contextmanager
def explained(base: BaseModel, config: TrainConfig, what: str, lower: Sequence[str] = STEP) -> Iterator[None]:
    """Run a part of the work; `what` names it, `lower` the options that it takes less memory with.

    Raises:
        OutOfMemoryError: instead of torch's.
        HostChanged: instead of whatever torch says when the model was taken away in the middle.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        flat, options = config.to_flat(), options_by_name()
        values = [f"{options[name].title} is {flat[name]}" for name in lower]
        raise OutOfMemoryError(
            f"The GPU ran out of memory at {what}: {', '.join(values[:-1])} and {values[-1]}; lower one of them, or close other "
            "programs that use the GPU. The checkpoint is unchanged."
        ) from error
    except RuntimeError:
        base.verify()
        raise
