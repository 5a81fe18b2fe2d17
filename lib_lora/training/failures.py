"""Why torch failed, in words, where the reason is known."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lib_lora.errors import TrainLoraError
from lib_lora.model.base import BaseModel


class OutOfMemoryError(TrainLoraError):
    """The GPU has not enough memory for these settings."""


@contextmanager
def explained(base: BaseModel, what: str) -> Iterator[None]:
    """Run a part of the work; `what` names it.

    Raises:
        OutOfMemoryError: instead of torch's.
        HostChanged: instead of whatever torch says when the model was taken away in the middle.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise OutOfMemoryError(
            f"The GPU ran out of memory at {what}: lower Batch size (batch_size), Resolution (resolution) or Rank (rank), "
            "or close what else uses the GPU. The checkpoint is as it was."
        ) from error
    except RuntimeError:
        base.verify()
        raise
