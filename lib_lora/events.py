"""What a run tells while it goes on. Tab, command line, jobs and tests consume the same events; and how it is asked to stop."""

from __future__ import annotations

import threading
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


@dataclass
class SaveFailed:
    """The disk refused a LoRA. Whoever runs the training may have room made and call `try_again`; else the run ends with it."""

    text: str
    again: bool = False

    def try_again(self) -> None:
        """Have the file written once more."""
        self.again = True


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


class Stop:
    """What is asked of a run, from any thread: to end at the next step (the first request counts), to stand, or to save there."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._save = threading.Event()
        self._gate = threading.Event()  # cleared while the program wants the run to stand
        self._gate.set()
        self._go = threading.Event()  # cleared while a person holds the run
        self._go.set()
        self._keep = self._leave = False

    def request_save(self) -> None:
        """Ask for a file of the moment after the next step."""
        self._save.set()

    def take_save_request(self) -> bool:
        """Whether a file was asked for since this was called last."""
        asked = self._save.is_set()
        self._save.clear()
        return asked

    def request(self, *, keep: bool) -> None:
        """Ask for the end; with `keep` the LoRA as it is then gets saved."""
        if not self._asked.is_set():
            self._keep = keep
            self._asked.set()
        self._go.set()

    def request_leave(self) -> None:
        """The program ends: ask for the end, with the state to go on from and no LoRA."""
        if not self._asked.is_set():
            self._leave = True
        self.request(keep=False)
        self.open_gate()

    def hold(self) -> None:
        """Let the run stand after its step until `go_on`, or until its end is asked for."""
        if not self.requested:
            self._go.clear()

    def go_on(self) -> None:
        """Let a run that was held go on."""
        self._go.set()

    def shut_gate(self) -> None:
        """Let a run that has lent its model not take it again until `open_gate`."""
        self._gate.clear()

    def open_gate(self) -> None:
        """Let it take its model again."""
        self._gate.set()

    def wait_at_gate(self) -> None:
        """Returns when the gate is open."""
        self._gate.wait()

    @property
    def held(self) -> bool:
        return not self._go.is_set()

    def wait_while_held(self) -> None:
        """Returns when nobody holds the run."""
        self._go.wait()

    def wait_for_request(self, seconds: float) -> None:
        """Returns when the end is asked for, or after `seconds`."""
        self._asked.wait(seconds)

    @property
    def requested(self) -> bool:
        return self._asked.is_set()

    @property
    def keep(self) -> bool:
        return self._keep

    @property
    def leaves(self) -> bool:
        return self._leave
