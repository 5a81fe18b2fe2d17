"""One job as it is written down: settings, state, times, and what became of it. Plain values, read back with suspicion."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

EntryState = Literal["waiting", "running", "finished", "stopped", "failed", "interrupted", "broken"]
FORMAT = 1
CURVE_POINTS = 200  # of a loss curve that is kept
_DECAY = 0.95  # of the mean loss, as the curve in the tab


@dataclass(frozen=True)
class Entry:
    """A job of the queue or the history.

    Attributes:
        id: name of its folder.
        settings: option name -> JSON value, all of them.
        queued, started, ended, seen: seconds since 1970; `seen` is when it was written last.
        checkpoint: the one that was selected when it was queued; empty where the host has no choice.
        direct: begun by Train at once, and not yet found to be possible.
        curve: mean losses of consecutive stretches of the run, at most CURVE_POINTS.
        loss: exponential mean at the last step.
        state_folder: the newest saved state, or None.
        goes_on_from: the state that this run of the job begins with, or None; `settings` stay as they were given.
    """

    id: str
    settings: dict[str, Any]
    queued: float
    state: EntryState = "waiting"
    checkpoint: str = ""
    direct: bool = False
    started: float | None = None
    ended: float | None = None
    seen: float | None = None
    step: int = 0
    total: int = 0
    first_step: int = 0
    loss: float | None = None
    curve: tuple[float, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    between: tuple[str, ...] = ()
    saved: str | None = None
    state_folder: str | None = None
    goes_on_from: str | None = None

    @property
    def name(self) -> str:
        """Of the LoRA."""
        return str(self.settings.get("name", ""))

    @property
    def over(self) -> bool:
        """Neither waits nor runs."""
        return self.state not in {"waiting", "running"}

    def to_json(self) -> str:
        """What stands in its file."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "id"}
        return json.dumps({"format": FORMAT, **fields}, ensure_ascii=False, indent=1, allow_nan=False)


def read_entry(entry_id: str, text: str) -> Entry:
    """The entry that `to_json` wrote.

    Raises:
        ValueError: it is no such text.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ValueError("written by another version")
    known = {field.name: field for field in dataclasses.fields(Entry) if field.name != "id"}
    if values.keys() - known.keys() or not {"settings", "queued", "state"} <= values.keys():
        raise ValueError("fields are missing or unknown")
    return Entry(id=entry_id, **{name: _checked(name, str(known[name].type), value) for name, value in values.items()})


def broken(entry_id: str, reason: str, seen: float) -> Entry:
    """What is shown of a job whose file cannot be read."""
    sentence = f"The file of this job cannot be read ({reason}). Nothing else depends on it; remove it."
    return Entry(entry_id, {}, seen, "broken", problems=(sentence,))


def with_progress(entry: Entry, job: Mapping[str, Any], state_folder: str | None, now: float) -> Entry:
    """The entry with what a job's snapshot says; what an earlier run of it reached stays until there is something newer."""
    reached: dict[str, Any] = {}
    if job["losses"]:
        reached = {
            "step": job["step"],
            "total": job["total"],
            "first_step": job["first_step"],
            "loss": smoothed(job["losses"]),
            "curve": thinned(job["losses"]),
        }
    return dataclasses.replace(
        entry,
        seen=now,
        problems=tuple(job["problems"]),
        notes=(*job["choices"], *job["notes"]),
        between=tuple(dict.fromkeys([*entry.between, *job["between"]])),
        saved=job["saved"] or entry.saved,
        state_folder=state_folder or entry.state_folder,
        **reached,
    )


def smoothed(losses: Sequence[float]) -> float | None:
    """The exponential mean after the last loss, the bias of its start taken out; None where nothing finite was lost."""
    mean = 0.0
    for loss in losses:
        mean = _DECAY * mean + (1 - _DECAY) * loss
    return mean / (1 - _DECAY ** len(losses)) if losses and math.isfinite(mean) else None


def thinned(losses: Sequence[float], most: int = CURVE_POINTS) -> tuple[float, ...]:
    """Means of consecutive stretches of equal length, at most `most`; what is not finite is left out."""
    stride = max(1, math.ceil(len(losses) / most))
    means = (sum(losses[at : at + stride]) / len(losses[at : at + stride]) for at in range(0, len(losses), stride))
    return tuple(mean for mean in means if math.isfinite(mean))


def _checked(name: str, kind: str, value: Any) -> Any:
    """`value` as the field's annotation says, lists as tuples."""
    legal: bool
    if kind.startswith("tuple"):
        inner: tuple[type, ...] = (str,) if "str" in kind else (int, float)
        legal = isinstance(value, list) and all(isinstance(item, inner) for item in value)
        value = tuple(value) if legal else value
    elif kind == "EntryState":
        legal = value in get_args(EntryState)
    elif kind.startswith("dict"):
        legal = isinstance(value, dict)
    elif value is None:
        legal = kind.endswith("None")
    else:
        kinds: dict[str, tuple[type, ...]] = {"float": (int, float), "int": (int,), "str": (str,), "bool": (bool,)}
        legal = isinstance(value, kinds[kind.removesuffix(" | None")])
    if not legal:
        raise ValueError(f"{name} is {str(value)[:40]!r}")
    return value
