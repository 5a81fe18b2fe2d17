"""The events that a run yields. Tab, command line, jobs and tests consume the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Union

from lib_lora.plan import Plan


@dataclass(frozen=True)
class _Text:
    """A sentence for people."""

    text: str


@dataclass(frozen=True)
class Planned:
    """All checks passed; the run will follow `plan`."""

    plan: Plan


class Phase(_Text):
    """What the run does now, such as `waiting for the model`."""


class Lent(_Text):
    """The run gave the model back for a while; `text` says what it waits for."""


class Chosen(_Text):
    """A choice that the settings left to the run, with its reason."""


@dataclass(frozen=True)
class Encoded:
    """`done` of `total` images are encoded to latents."""

    done: int
    total: int


@dataclass(frozen=True)
class StepDone:
    """One optimizer step is finished. `step` counts from 1, `epoch` from 1.

    `gradient_norm` is that of all gradients before clipping; None if they are not clipped.
    """

    step: int
    total: int
    epoch: int
    loss: float
    learning_rates: tuple[float, ...]
    gradient_norm: float | None = None


@dataclass(frozen=True)
class HeldOut:
    """The mean validation loss on the images held out, measured after `step`."""

    step: int
    loss: float


@dataclass(frozen=True)
class Saved:
    """The final LoRA is on disk, and the host has loaded it once."""

    path: Path
    steps: int


@dataclass(frozen=True)
class SavedBetween:
    """A LoRA was saved in between, with its card; `removed` is the name of an older one that was removed."""

    path: Path
    step: int
    removed: str | None = None


@dataclass(frozen=True)
class StateSaved:
    """The state to resume from after `step` is in `folder`."""

    folder: Path
    step: int


@dataclass(frozen=True)
class Sampled:
    """The samples were drawn after `step` updates; `paths` and `prompts` are in the same order."""

    step: int
    paths: tuple[Path, ...]
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class BestSaved:
    """The LoRA with the lowest held-out loss, if it is not the last one, is on disk too."""

    path: Path
    step: int
    loss: float


class Note(_Text):
    """A message; the run continues."""


class SaveFailed(_Text):
    """The disk refused a LoRA. The run retries if `RunControl.on_write_failed()` returns True next; else it ends."""


@dataclass(frozen=True)
class Left:
    """The files and folders that the run wrote and that still exist, at its end, also after an error."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Finished:
    """The run is over and the model was given back. `path` is None if the run was stopped without keeping a LoRA."""

    path: Path | None
    steps: int


Event = Union[
    Planned, Phase, Lent, Chosen, Encoded, StepDone, Saved, SavedBetween, StateSaved, Sampled, HeldOut, BestSaved, Note,
    SaveFailed, Left, Finished,
]  # fmt: skip
