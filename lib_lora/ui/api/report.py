"""The report of a dataset over HTTP: what training would make of it under some settings, as the form's report says it."""

from __future__ import annotations

from typing import Any

from lib_lora.check import look
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.errors import Problem, bounded
from lib_lora.host import Host
from lib_lora.plan import Plan
from lib_lora.ui.api.asked import asked_settings
from lib_lora.ui.api.serving import Call, Routes
from lib_lora.ui.report import folder_name, reported

MOST_CAPTIONS = 20


class ReportRoute:
    """`POST datasets/{dataset}/report`.

    Args:
        host: what it trains on.
        hides_folders: refuse settings that name folders or files of the machine.
    """

    def __init__(self, catalogue: Catalogue, host: Host, *, hides_folders: bool) -> None:
        self._catalogue, self._host, self._hides_folders = catalogue, host, hides_folders

    def add_to(self, routes: Routes) -> None:
        """Add the route."""
        routes.add("POST", "/datasets/{dataset}/report", self.report, ("settings",))

    def report(self, call: Call) -> Any:
        """The plan, null if there is none yet, and all problems. `settings`: options by their names, as in a settings file."""
        config, illegal = asked_settings(call, self._catalogue, call.path["dataset"], hides_folders=self._hides_folders)
        plan, problems = reported(look(config, self._host), illegal)
        told = bounded(problems)
        return {"plan": None if plan is None else _plan(plan), "problems": [_problem(text) for text in told]}


def _problem(text: str) -> dict[str, str]:
    return {"option": text.option if isinstance(text, Problem) else "", "text": str(text)}


def _plan(plan: Plan) -> dict[str, Any]:
    """A plan as JSON; sizes are [width, height]."""
    learned = [sample for sample in plan.samples if not sample.is_reg]
    captions = list(dict.fromkeys(sample.caption for sample in learned))
    return {
        "steps": plan.steps,
        "steps_per_epoch": plan.steps_per_epoch,
        "epochs": plan.epochs,
        "formula": plan.formula,
        "model": plan.model,
        "layers": plan.layers,
        "images": len(learned),
        "validation_images": len(plan.heldout),
        "folders": [
            {
                "name": folder_name(folder),
                "images": sum(sample.path.parent == folder.path for sample in plan.samples),
                "repeats": folder.repeats,
                "regularisation": folder.is_reg,
            }
            for folder in plan.folders
        ],
        "buckets": [
            {"size": [size.width, size.height], "images": len(set(members)), "per_epoch": len(members)}
            for size, members in plan.buckets.items()
        ],
        "captions": plan.captions,
        "trained_captions": captions[:MOST_CAPTIONS],
        "notes": list(plan.notes),
    }
