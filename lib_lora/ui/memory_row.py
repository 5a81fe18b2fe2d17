"""The row that tells how much memory the run takes, below the report of the images."""

from __future__ import annotations

import threading
from html import escape

from lib_lora.check import Findings
from lib_lora.config.groups import all_options
from lib_lora.config.settled import Settled
from lib_lora.errors import TrainLoraError
from lib_lora.estimate.estimate import estimate, short
from lib_lora.host import Host
from lib_lora.model.base import BaseModel
from lib_lora.plan import Plan

KEPT = 32  # answers


class MemoryRow:
    """Counts on a likeness of the model in hand, one question at a time; the same question is counted once."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._answers: dict[object, str] = {}
        self._asked = 0

    def html(self, found: Findings) -> str | None:
        """The row; "" without a model to count on or images, None where a later question came meanwhile."""
        self._asked += 1
        number = self._asked
        with self._lock:
            if number != self._asked:
                return None
            text = self._text(found.settled, found.base, found.plan)
        row = f"<tr><th>Memory</th><td>{escape(text)}</td></tr>"
        return f"<table class='train-lora-report'>{row}</table>" if text else ""

    def _text(self, config: Settled, base: BaseModel | None, plan: Plan | None) -> str:
        if base is None or plan is None:
            return ""
        captions = len({sample.caption for sample in plan.samples})
        counted = [opt for opt in all_options() if opt.declaration.affects not in ("length", "files")]
        key = (base.info().name, str(self._host.device()), captions, tuple(plan.buckets), *map(config.value, counted))
        if key not in self._answers:
            if len(self._answers) >= KEPT:
                self._answers.clear()
            self._answers[key] = self._counted(config, base, plan)
        return self._answers[key]

    def _counted(self, config: Settled, base: BaseModel, plan: Plan) -> str:
        try:
            return short(estimate(config, base, self._host.device(), plan))
        except TrainLoraError:
            return ""  # what is wrong with the settings is told by the report, or at the start
        except Exception as error:  # noqa: BLE001 - other extensions may have put anything into the model's classes
            return f"not known for this model ({type(error).__name__}: {error})"
