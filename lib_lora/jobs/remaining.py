"""How long a run will still take, with samples, saves, validation and the card: from what its parts took so far."""

from __future__ import annotations

import statistics
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import Literal

from lib_lora.config.groups import TrainConfig
from lib_lora.events import Event, Finished, HeldOut, Lent, Note, Sampled, Saved, SavedBetween, StateSaved, StepDone
from lib_lora.output.preview import STEPS as PREVIEW_STEPS
from lib_lora.plan import Plan
from lib_lora.training.cadence import due_saves, heldout_due, samples_due
from lib_lora.training.trainer import MEASURED, heldout_batches

Part = Literal["step", "validation", "samples", "save", "state", "card"]
RECENT = 100  # of a part
OUTLIER = 3.0  # medians; what took longer counts as this much
BACKWARD = 2.0  # forward passes

_ENDS: dict[type, Part] = {
    StepDone: "step", HeldOut: "validation", Sampled: "samples", SavedBetween: "save", Saved: "save", StateSaved: "state",
    Finished: "card",
}  # fmt: skip


def typical_s(took: Sequence[float]) -> float:
    """The mean of the durations of a part, robust against outliers; the first one, which warms up, only counts alone.

    Not the median: with buckets of several sizes, steps take now this long and now that.
    """
    recent = list(took)[1:] or took
    limit = OUTLIER * statistics.median(recent)
    return statistics.fmean(min(seconds, limit) for seconds in recent)


def remaining_s(took: Mapping[Part, Sequence[float]], left: Mapping[Part, int], worth: Mapping[Part, float]) -> float | None:
    """Seconds to the end; None before the second step.

    Args:
        took: durations of each part so far, in seconds.
        left: how many of each part are to come.
        worth: how many steps a part is taken to last that was not measured yet.
    """
    if len(took.get("step", ())) < 2:
        return None
    step = typical_s(took["step"])
    costs = {part: typical_s(took[part]) if took.get(part) else step * worth.get(part, 0.0) for part in left}
    return sum(count * costs[part] for part, count in left.items())


class Timing:
    """What the parts of a run took, and how many are to come, by its events.

    Times are in seconds, of a clock that stands while the run does.
    """

    def __init__(self) -> None:
        self._took: dict[Part, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))
        self._due: dict[Part, list[int]] = {}  # the steps after which there is one, in order
        self._at_end: Counter[Part] = Counter()
        self._worth: dict[Part, float] = {}
        self._step = self._steps = 0
        self._since = 0.0
        self._card = 0.0  # of a picture, what the card's preview takes
        self._reported: Counter[Part] = Counter()  # since the last step
        self._lent = False

    def follow(self, config: TrainConfig, plan: Plan) -> None:
        """Know what is to come: asks the same functions as the run."""
        run, steps = config.run, range(plan.steps + 1)
        self._due = {
            "samples": [step for step in steps if samples_due(run, plan, step)],
            "validation": [step for step in steps[1:] if heldout_due(config.data, plan, step)],
            "save": [step for step in steps[1:] for _ in due_saves(run, plan, step)],
        }
        self._steps = plan.steps
        self._due["state"] = self._due["save"] if run.save_state else []
        self._at_end = Counter({"save": 1, "card": 1, "state": int(run.save_state or run.save_state_on_train_end)})
        images = max(1, plan.batch_size * plan.accumulation)
        forward = 1 / (images * (1 + BACKWARD))  # of one image, in steps
        batches = sum(1 for _ in heldout_batches(config.data, plan))
        picture = 2 * PREVIEW_STEPS * forward  # guided: two predictions a step
        self._card = run.preview_steps / PREVIEW_STEPS
        self._worth = {"samples": picture, "card": picture * self._card, "save": 1.0, "state": 1.0}
        self._worth["validation"] = batches * MEASURED * plan.batch_size * forward

    def happened(self, event: Event, now: float) -> None:
        """Time what ends with `event`."""
        part, seconds, lent = _ENDS.get(type(event)), now - self._since, self._lent
        self._lent = isinstance(event, Lent)
        if isinstance(event, Note):
            return  # in the middle of something
        self._since = now
        if part is None or lent:
            return
        self._took[part].append(seconds)
        if isinstance(event, Sampled) and event.paths:
            self._took["card"].append(seconds / len(event.paths) * self._card)
        if isinstance(event, StepDone):
            self._begin(event.step)
        else:
            self._reported[part] += 1

    def remaining_s(self, now: float) -> float | None:
        """Seconds to the end at `now`; None as long as it cannot be known."""
        if not self._due or not self._step:
            return None
        others: tuple[Part, ...] = ("samples", "validation", "save", "state", "card")
        left: dict[Part, int] = {part: self._left(part) for part in others}
        left["step"] = self._steps - self._step
        total = remaining_s(self._took, left, self._worth)
        if total is None:
            return None
        under_way = {part: count for part in self._due if (count := self._now_due(part) - self._reported[part]) > 0}
        if not under_way:
            under_way = {"step": 1} if left["step"] else left
        return max(0.0, total - min(now - self._since, remaining_s(self._took, under_way, self._worth) or 0.0))

    def _begin(self, step: int) -> None:
        """The step was made: what is due after it comes now."""
        if self._step and self._reported["samples"] < self._now_due("samples"):
            self._due["samples"] = []  # they failed, and the run goes on without them
        self._step, self._reported = step, Counter()

    def _now_due(self, part: Part) -> int:
        due = self._due.get(part, [])
        return bisect_left(due, self._step + 1) - bisect_left(due, self._step)

    def _left(self, part: Part) -> int:
        due = self._due.get(part, [])
        later = len(due) - bisect_left(due, self._step + 1)
        return later + max(0, self._now_due(part) + self._at_end[part] - self._reported[part])
