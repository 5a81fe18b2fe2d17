"""The form as a browser kept it: a page that is loaded again fills its form, also after the webui was restarted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from lib_lora.config.options import Option
from lib_lora.errors import TrainLoraError
from lib_lora.ui.form import CHANGED
from lib_lora.ui.guard import Guard

LONGEST = 500_000  # characters of what a browser keeps


class RestoredForm:
    """A hidden button that JavaScript presses once, with what it kept."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def wire(self, options: Sequence[Option], components: Mapping[str, Any], key: Any) -> None:
        """Create the button. `options`: those of `components`, in form order; `key`: see `Guard`."""
        kept = gr.Textbox("", visible=False, elem_id="train_lora_kept")
        button = gr.Button("Restore", elem_id="train_lora_restore", elem_classes=["train-lora-hidden"])
        fields = [components[opt.name] for opt in options]

        def restore(sent: Any = "") -> list[Any]:
            return restored(options, sent)

        guarded = self._guard.guarded(restore, lambda _problems: [gr.update() for _ in fields])
        event = button.click(guarded, inputs=[key, kept], outputs=fields, _js="trainLora.report.kept", show_progress="hidden",
                             preprocess=False)  # fmt: skip
        event.then(None, inputs=[], outputs=[], _js=CHANGED)


def restored(options: Sequence[Option], sent: Any) -> list[Any]:
    """An update for each component from the JSON object that a browser kept; those that do not fit stay.

    Raises:
        TrainLoraError: it is no such object.
    """
    try:
        if not isinstance(sent, str) or len(sent) > LONGEST:
            raise ValueError
        values = json.loads(sent) if sent else {}
        if not isinstance(values, dict):
            raise ValueError
    except (ValueError, RecursionError) as error:
        raise TrainLoraError("What the browser kept of the form cannot be read.") from error
    return [gr.update(value=values[opt.name]) if _fits(opt, values.get(opt.name)) else gr.update() for opt in options]


def _fits(opt: Option, value: Any) -> bool:
    """Whether the component of `opt` can hold a value; whether it is legal is the report's business."""
    if opt.type is bool:
        return isinstance(value, bool)
    if opt.type is int or opt.declaration.slider:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if opt.choices is not None and not opt.declaration.suggestions:
        return value in opt.choices
    return isinstance(value, str)
