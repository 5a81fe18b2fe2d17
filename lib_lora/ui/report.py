"""What was found, as HTML: images, repeats, buckets, captions, the number of steps and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lib_lora.data.dataset import Dataset
from lib_lora.plan import Plan

SHOWN_CAPTIONS = 3


def plan_html(plan: Plan, dataset: Dataset) -> str:
    """The report of a dataset that can be trained on."""
    folders = [
        f"{escape(folder.path.name)}: {sum(s.path.parent == folder.path for s in plan.samples)} images × {folder.repeats}"
        for folder in plan.folders
    ]
    with_file = sum(sample.has_caption_file for sample in plan.samples)
    captions = list(dict.fromkeys(sample.caption for sample in plan.samples))
    rows = [
        ("Steps", f"<b>{plan.steps}</b>"),
        ("Formula", escape(plan.formula)),
        ("Images", f"{len(plan.samples)}"),
        ("Folders", "<br>".join(folders)),
        ("Buckets", _buckets_html(plan)),
        ("Captions", f"{with_file} of {len(plan.samples)} from files"),
        (
            "Trained text",
            "<br>".join(f"<q>{escape(text)}</q>" for text in captions[:SHOWN_CAPTIONS])
            + (f"<br>and {len(captions) - SHOWN_CAPTIONS} more" if len(captions) > SHOWN_CAPTIONS else ""),
        ),
    ]
    body = "".join(f"<tr><th>{label}</th><td>{value}</td></tr>" for label, value in rows)
    return f"<table class='train-lora-report'>{body}</table>{list_html(dataset.notes, 'note')}"


def list_html(texts: Sequence[str], kind: str) -> str:
    """Sentences as a list; nothing for none."""
    if not texts:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f"<ul class='train-lora-{kind}'>{items}</ul>"


def _buckets_html(plan: Plan) -> str:
    total = max(len(members) for members in plan.buckets.values())
    rows = [
        f"<div class='train-lora-bucket'><span>{size}</span><meter min='0' max='{total}' value='{len(members)}'></meter>"
        f"<span>{len(set(members))} images</span></div>"
        for size, members in plan.buckets.items()
    ]
    return "".join(rows)
