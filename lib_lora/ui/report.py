"""The report as HTML: images, repeats, buckets, captions, and the number of steps with its formula."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from lib_lora.advice.judgement import Judgement
from lib_lora.check import Findings
from lib_lora.config.groups import all_options
from lib_lora.config.settled import Settled
from lib_lora.data.folders import Folder
from lib_lora.errors import Problem, TrainLoraError, bounded
from lib_lora.estimate.estimate import estimate, short
from lib_lora.host import Host
from lib_lora.languages.spoken import said
from lib_lora.model.base import BaseModel
from lib_lora.plan import Plan
from lib_lora.ui.advised import fields

SHOWN_CAPTIONS = 3
# settings that decide what of an image is trained on, and how its caption is cut into tokens
_OF_IMAGES = (
    "resolution", "resolution_height", "enable_bucket", "min_bucket_reso", "max_bucket_reso", "bucket_reso_steps",
    "bucket_no_upscale", "trigger", "max_token_length", "masked_loss", "alpha_mask",
)  # fmt: skip
KEPT = 32  # answers


def reported(found: Findings, illegal: Sequence[Problem]) -> tuple[Plan | None, list[Problem]]:
    """The plan, None if there is none yet, and all problems but that of an empty name, which is not needed before the start.

    `illegal`: of values that the settings of `found` have defaults for.
    """
    others = [problem for problem in found.problems if found.config.run.name or problem.option != "name"]
    return found.plan if not illegal else None, together(illegal, others)


def together(illegal: Sequence[Problem], others: Sequence[Problem]) -> list[Problem]:
    """Illegal values and the problems of other options; an illegal value counts as its default there."""
    named = {problem.option for problem in illegal} - {""}
    return [*illegal, *(problem for problem in others if problem.option not in named)]


def plan_html(plan: Plan) -> str:
    """The report of a plan."""
    folders, regularising = (_folders_html(plan, is_reg=is_reg) for is_reg in (False, True))
    learned = [sample for sample in plan.samples if not sample.is_reg]
    captions = list(dict.fromkeys(sample.caption for sample in learned))
    heldout = said(f", {len(plan.heldout)} of them for validation") if plan.heldout else ""
    rows = [
        ("Steps", f"<b>{plan.steps}</b>"),
        ("Formula", escape(said(plan.formula))),
        ("Model", escape(said(plan.model or "not loaded yet; shown when the run starts"))),
        *([("Layers", escape(said(plan.layers)))] if plan.layers else []),
        ("Images", f"{len(learned)}{heldout}"),
        ("Folders", folders),
        *([("Regularisation", regularising)] if regularising else []),
        ("Buckets", _buckets_html(plan)),
        *([("Masks", escape(said(plan.masks)))] if plan.masks else []),
        ("Captions", escape(said(plan.captions))),
        (
            "Trained captions",
            "<br>".join(f"<q>{escape(text)}</q>" for text in captions[:SHOWN_CAPTIONS])
            + ("<br>" + said(f"and {len(captions) - SHOWN_CAPTIONS} more") if len(captions) > SHOWN_CAPTIONS else ""),
        ),
    ]
    body = "".join(f"<tr><th>{label}</th><td>{value}</td></tr>" for label, value in rows)
    return f"<table class='train-lora-report'>{body}</table>{list_html(plan.notes, 'note')}"


def _folders_html(plan: Plan, *, is_reg: bool) -> str:
    return "<br>".join(
        escape(
            said(f"{folder_name(folder)}: {sum(s.path.parent == folder.path for s in plan.samples)} images × {folder.repeats}")
        )
        for folder in plan.folders
        if folder.is_reg == is_reg
    )


def marked(serial: int, flat: Mapping[str, Any]) -> str:
    """The hidden mark of a report: serial number, the settings that the Images room shows images by, and all of the form."""
    settings = json.dumps({name: flat[name] for name in _OF_IMAGES if name in flat})
    return f"<i hidden data-serial='{serial}' data-buckets='{escape(settings)}' data-settings='{escape(json.dumps(flat))}'></i>"


def folder_name(folder: Folder) -> str:
    """The name of a folder for people: that of its dataset, if it has one."""
    dropped = re.fullmatch(r"drop-[0-9a-f]{16}", folder.path.name)  # of jobs from before datasets had names
    return "dropped images" if dropped else (folder.path == folder.root and folder.edits.name) or folder.path.name


def hint_html(text: str) -> str:
    """A message that is no problem."""
    return f"<p class='train-lora-hint'>{escape(said(text))}</p>"


def list_html(texts: Sequence[str], kind: str) -> str:
    """Sentences as an HTML list of limited length; "" if there are none."""
    return said_html([said(text) for text in bounded(texts)], kind)


def judged_html(judgements: Sequence[Judgement], kind: str) -> str:
    """As `list_html`, with a button for each that a setting mends: the page fills its form with the button's values."""
    return _items_html([f"{escape(said(text))}{_button_html(text)}" for text in bounded(judgements)], kind)


def _button_html(judgement: str) -> str:
    if not (isinstance(judgement, Judgement) and judgement.mend):
        return ""
    values = escape(json.dumps(fields(judgement.mend)))
    return f" <button type='button' class='train-lora-mend' data-mend='{values}'>{escape(judgement.button(said))}</button>"


def said_html(texts: Sequence[str], kind: str) -> str:
    """As `list_html`, of sentences that are in the user's language already."""
    return _items_html(list(map(escape, texts)), kind)


def _items_html(items: Sequence[str], kind: str) -> str:
    return f"<ul class='train-lora-{kind}'>{''.join(f'<li>{item}</li>' for item in items)}</ul>" if items else ""


def _buckets_html(plan: Plan) -> str:
    total = max(len(members) for members in plan.buckets.values())
    return "".join(
        f"<div class='train-lora-bucket'><span>{size}</span><meter min='0' max='{total}' value='{len(members)}'></meter>"
        f"<span>{said(f'{len(set(members))} images')}</span></div>"
        for size, members in plan.buckets.items()
    )


class MemoryRow:
    """Estimates memory on a meta copy of the model, one request at a time; answers are cached."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._answers: dict[object, str] = {}
        self._asked = 0

    def html(self, found: Findings) -> str | None:
        """The row; "" without a model or images, None if a later request came meanwhile."""
        self._asked += 1
        number = self._asked
        with self._lock:
            if number != self._asked:
                return None
            text = self._text(found.settled, found.base, found.plan)
        row = f"<tr><th>Memory</th><td>{escape(said(text))}</td></tr>"
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
            return ""  # the report, or the start, shows the problems
        except Exception as error:  # noqa: BLE001 - other extensions may have put anything into the model's classes
            return f"not known for this model ({type(error).__name__}: {error})"
