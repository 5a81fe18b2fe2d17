"""What a run tells while it goes on. Tab, command line, jobs and tests consume the same events."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Union

from lib_lora.plan import Plan


@dataclass(frozen=True)
class Planned:
    """Everything was checked; this is what will happen."""

    plan: Plan


@dataclass(frozen=True)
class Phase:
    """What the run does now, for people: `waiting for the model`."""

    text: str


@dataclass(frozen=True)
class Lent:
    """The model was given back in the middle of the run; `text` says what the run waits for, for people."""

    text: str


@dataclass(frozen=True)
class Chosen:
    """A decision that the settings left to the run, with its reason."""

    text: str


@dataclass(frozen=True)
class Encoded:
    """`done` of `total` images are latents."""

    done: int
    total: int


@dataclass(frozen=True)
class StepDone:
    """One optimizer step is finished. `step` counts from 1, `epoch` from 1."""

    step: int
    total: int
    epoch: int
    loss: float
    learning_rates: tuple[float, ...]


@dataclass(frozen=True)
class HeldOut:
    """The mean loss on the images that are not trained on, measured after `step`."""

    step: int
    loss: float


@dataclass(frozen=True)
class Saved:
    """The LoRA is on disk, was loaded once by the host, and has its card."""

    path: Path
    steps: int


@dataclass(frozen=True)
class SavedBetween:
    """A LoRA of the moment is on disk with its card, while the run goes on; `removed` is the name of an older one that went."""

    path: Path
    step: int
    removed: str | None = None


@dataclass(frozen=True)
class StateSaved:
    """All that is needed to go on from `step` is in `folder`."""

    folder: Path
    step: int


@dataclass(frozen=True)
class Sampled:
    """The sample prompts were drawn after `step` updates; `paths` and `prompts` in one order."""

    step: int
    paths: tuple[Path, ...]
    prompts: tuple[str, ...] = ()


@dataclass(frozen=True)
class BestSaved:
    """The LoRA with the lowest held-out loss, which is not the last one, is on disk too."""

    path: Path
    step: int
    loss: float


@dataclass(frozen=True)
class Note:
    """Something beside the LoRA did not work out; the run goes on."""

    text: str


@dataclass(frozen=True)
class SaveFailed:
    """The disk refused a LoRA. `RunControl.on_write_failed` is asked next whether it is written again; else the run ends."""

    text: str


@dataclass(frozen=True)
class Left:
    """The end, whatever it is: what the run wrote and what is still on the disk, files and folders."""

    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Finished:
    """The model was given back. `path` is None when the run was stopped without keeping anything."""

    path: Path | None
    steps: int


Event = Union[
    Planned, Phase, Lent, Chosen, Encoded, StepDone, Saved, SavedBetween, StateSaved, Sampled, HeldOut, BestSaved, Note,
    SaveFailed, Left, Finished,
]  # fmt: skip
