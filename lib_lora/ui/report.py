"""What was found, as HTML: images, repeats, buckets, captions, the number of steps and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lib_lora.plan import Plan
from lib_lora.sentences import bounded
from lib_lora.ui.uploads import shown_name

SHOWN_CAPTIONS = 3


def plan_html(plan: Plan) -> str:
    """The report of images that can be trained on."""
    folders, regularising = (_folders_html(plan, is_reg=is_reg) for is_reg in (False, True))
    learned = [sample for sample in plan.samples if not sample.is_reg]
    captions = list(dict.fromkeys(sample.caption for sample in learned))
    heldout = f", {len(plan.heldout)} of them for validation" if plan.heldout else ""
    rows = [
        ("Steps", f"<b>{plan.steps}</b>"),
        ("Formula", escape(plan.formula)),
        ("Model", escape(plan.model or "not loaded yet; shown when the run starts")),
        *([("Layers", escape(plan.layers))] if plan.layers else []),
        ("Images", f"{len(learned)}{heldout}"),
        ("Folders", folders),
        *([("Regularisation", regularising)] if regularising else []),
        ("Buckets", _buckets_html(plan)),
        ("Captions", escape(plan.captions)),
        (
            "Trained captions",
            "<br>".join(f"<q>{escape(text)}</q>" for text in captions[:SHOWN_CAPTIONS])
            + (f"<br>and {len(captions) - SHOWN_CAPTIONS} more" if len(captions) > SHOWN_CAPTIONS else ""),
        ),
    ]
    body = "".join(f"<tr><th>{label}</th><td>{value}</td></tr>" for label, value in rows)
    return f"<table class='train-lora-report'>{body}</table>{list_html(plan.notes, 'note')}"


def _folders_html(plan: Plan, *, is_reg: bool) -> str:
    return "<br>".join(
        f"{escape(shown_name(folder.path))}: {sum(s.path.parent == folder.path for s in plan.samples)} images × {folder.repeats}"
        for folder in plan.folders
        if folder.is_reg == is_reg
    )


def list_html(texts: Sequence[str], kind: str) -> str:
    """Sentences as a list with an end; nothing for none."""
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in bounded(texts))
    return f"<ul class='train-lora-{kind}'>{items}</ul>"


def _buckets_html(plan: Plan) -> str:
    total = max(len(members) for members in plan.buckets.values())
    rows = [
        f"<div class='train-lora-bucket'><span>{size}</span><meter min='0' max='{total}' value='{len(members)}'></meter>"
        f"<span>{len(set(members))} images</span></div>"
        for size, members in plan.buckets.items()
    ]
    return "".join(rows)
