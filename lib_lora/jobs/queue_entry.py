"""One job as saved on disk: settings, state, times and results. Plain values, validated when read."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from lib_lora.errors import bounded
from lib_lora.jobs.progress import Progress

EntryState = Literal["waiting", "running", "finished", "stopped", "failed", "interrupted", "broken"]
FORMAT = 1
CURVE_POINTS = 200  # points of a loss curve
MOST = 2**53 - 1  # largest count; JavaScript's largest safe integer
LATEST = 8.64e12  # seconds since 1970; JavaScript's latest date
LARGEST = 1e300
_DECAY = 0.95  # of the mean loss, as for the curve in the tab
_TIMES, _COUNTS = {"queued", "started", "ended", "seen"}, {"step", "total", "first_step"}


@dataclass(frozen=True)
class Entry:
    """A job of the queue or the history.

    Attributes:
        id: name of its folder.
        settings: option name -> JSON value, for all options.
        queued, started, ended, seen: seconds since 1970; `seen` is when it was last saved.
        checkpoint: the checkpoint that was selected when it was queued; empty if the host has no choice.
        direct: started by Train at once, and not checked yet.
        curve: mean losses of consecutive stretches of the run, at most CURVE_POINTS.
        loss: exponential mean at the last step.
        state_folder: the newest saved state, or None.
        goes_on_from: the state that this run of the job resumes from, or None; `settings` stay as given.
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
        """Name of the LoRA."""
        return str(self.settings.get("name", ""))

    @property
    def over(self) -> bool:
        """Whether the job neither waits nor runs."""
        return self.state not in {"waiting", "running"}

    def to_json(self) -> str:
        """The content of its file."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "id"}
        return json.dumps({"format": FORMAT, **fields}, ensure_ascii=False, indent=1, allow_nan=False)


def read_entry(entry_id: str, text: str) -> Entry:
    """The entry from the text that `to_json` returned.

    Raises:
        ValueError: the text is not valid.
    """
    values = json.loads(text)
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise ValueError("written by another version")
    known = {field.name: field for field in dataclasses.fields(Entry) if field.name != "id"}
    if values.keys() - known.keys() or not {"settings", "queued", "state"} <= values.keys():
        raise ValueError("fields are missing or unknown")
    return Entry(id=entry_id, **{name: _checked(name, str(known[name].type), value) for name, value in values.items()})


def broken(entry_id: str, reason: str, seen: float) -> Entry:
    """The entry for a job whose file cannot be read."""
    sentence = f"The file of this job cannot be read ({reason}). Nothing else depends on it, so you can remove it."
    return Entry(entry_id, {}, seen, "broken", problems=(sentence,))


def with_progress(entry: Entry, progress: Progress, now: float) -> Entry:
    """The entry with the progress of its run; values of an earlier run stay until there are newer ones."""
    if progress.losses:
        losses = progress.losses
        entry = dataclasses.replace(
            entry,
            step=progress.step,
            total=progress.steps,
            first_step=progress.first_step,
            loss=smoothed(losses),
            curve=thinned(losses),
        )
    return dataclasses.replace(
        entry,
        seen=now,
        problems=_sentences(progress.problems),
        notes=(*_sentences(progress.choices), *_sentences(progress.notes)),
        between=tuple(dict.fromkeys([*entry.between, *progress.between])),
        saved=progress.saved or entry.saved,
        state_folder=str(progress.state_folder) if progress.state_folder else entry.state_folder,
    )


def _sentences(texts: Sequence[str]) -> tuple[str, ...]:
    """`texts`, limited in number and made valid for JSON."""
    return tuple(strict(bounded(texts)))


def smoothed(losses: Sequence[float]) -> float | None:
    """The bias-corrected exponential mean after the last loss; None without a finite loss.

    Losses that are not finite are left out.
    """
    mean, finite = 0.0, _finite(losses)
    for loss in finite:
        mean = _DECAY * mean + (1 - _DECAY) * loss
    return mean / (1 - _DECAY ** len(finite)) if finite and math.isfinite(mean) else None


def thinned(losses: Sequence[float], most: int = CURVE_POINTS) -> tuple[float, ...]:
    """Means of consecutive stretches of equal length, at most `most`; losses that are not finite are left out."""
    stride = max(1, math.ceil(len(losses) / most))
    stretches = (_finite(losses[at : at + stride]) for at in range(0, len(losses), stride))
    means = (sum(stretch) / len(stretch) for stretch in stretches if stretch)
    return tuple(mean for mean in means if math.isfinite(mean))


def _finite(losses: Sequence[float]) -> list[float]:
    return [loss for loss in losses if math.isfinite(loss)]


def _checked(name: str, kind: str, value: Any) -> Any:
    """`value` as the type in the field's annotation, lists as tuples.

    Raises:
        ValueError: it is of another type, or out of bounds.
    """
    legal: bool
    if kind.startswith("tuple"):
        legal = isinstance(value, list) and all(_is_plain(item, "str" if "str" in kind else "float") for item in value)
        value = tuple(value) if legal else value
    elif kind == "EntryState":
        legal = value in get_args(EntryState) and value != "broken"
    elif kind.startswith("dict"):
        legal = isinstance(value, dict) and all(_is_setting(item) for item in value.values())
    elif value is None:
        legal = kind.endswith("None")
    else:
        legal = _is_plain(value, kind.removesuffix(" | None"))
        legal = legal and (name not in _TIMES or 0 <= value <= LATEST) and (name not in _COUNTS or 0 <= value <= MOST)
    if not legal:
        raise ValueError(f"{name} is {_cut(value)!r}")
    return value


def _is_plain(value: Any, kind: str) -> bool:
    """Whether a value is of a type, and if a number, one that every JSON reader can read."""
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind == "float":
        return isinstance(value, (int, float)) and -LARGEST <= value <= LARGEST  # False for NaN
    return isinstance(value, {"int": int, "str": str}[kind])


def _is_setting(value: Any) -> bool:
    """Whether a value may be an option's: a plain value, or a list of these."""
    if isinstance(value, list):
        return all(_is_setting(item) and not isinstance(item, list) for item in value)
    return value is None or any(_is_plain(value, kind) for kind in ("bool", "float", "str"))


def _cut(value: Any) -> str:
    """The beginning of a value as text, however deep and long it is."""
    try:
        return str(value)[:40]
    except (ValueError, RecursionError):  # Python formats no integer of more than 4,300 digits
        return type(value).__name__


def strict(value: Any) -> Any:
    """The nested value with None for numbers that are not finite, and "?" for characters that UTF-8 cannot encode.

    File names may hold such characters.
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    return [strict(item) for item in value] if isinstance(value, (list, tuple)) else value
