"""Queue and history below the form. JavaScript draws the list, and presses hidden buttons with the id of a job."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.config.options import Option, field_value
from lib_lora.jobs.history import settings_to_repeat
from lib_lora.jobs.queue import Placed, Queue
from lib_lora.languages.spoken import said
from lib_lora.ui.form import WITH_KEY
from lib_lora.ui.guard import Guard
from lib_lora.ui.report import hint_html, list_html

OWN_IMAGES = "trainLora.images.filled"  # JavaScript: the form was filled, and names images of its own
# JavaScript returns the key and the id of the pressed button's job
PRESSED: dict[str, Any] = {**WITH_KEY, "_js": "trainLora.queue.withKey"}


class QueueSection:
    """The list's place in the tab, and the events of its buttons."""

    def __init__(self, queue: Queue, guard: Guard, *, hides_folders: bool) -> None:
        self._queue, self._guard, self._hides_folders = queue, guard, hides_folders
        self._options: list[Option] = []
        self._serial = itertools.count()
        self.changes: dict[str, Callable[[str], Any]] = {
            "up": lambda entry: queue.move(entry, -1),
            "down": lambda entry: queue.move(entry, 1),
            "remove": queue.remove,
            "resume": queue.resume,
            "start": lambda _: queue.release(),
            "hold": lambda _: queue.hold(),
            "kept": self._kept,
        }

    def build(self, options: Sequence[Option], components: Sequence[Any], key: Any, message: Any) -> None:
        """Create the components. `components` are those of `options`, `key` is the guard's."""
        self._options = list(options)
        with gr.Accordion("Queue and history", open=True, elem_id="train_lora_queue_box"):
            gr.HTML("<div id='train_lora_queue'></div>", elem_id="train_lora_queue_html")
        chosen = gr.Textbox(value="", visible=False, elem_id="train_lora_queue_chosen")
        fills: dict[str, Callable[[str], Any]] = {
            "repeat": partial(self.fill, from_state=False),
            "extend": partial(self.fill, from_state=True),
        }
        for name, answer in {**self.changes, **fills}.items():
            outputs = [message, *components] if name in fills else [message]
            button = gr.Button(name, elem_id=f"train_lora_queue_{name}", elem_classes=["train-lora-hidden"])
            answered = button.click(self.guarded(answer, len(outputs) - 1), inputs=[key, chosen], outputs=outputs, **PRESSED)
            if name in fills:
                answered.then(None, inputs=[], outputs=[], _js=OWN_IMAGES)

    def guarded(self, answer: Callable[[str], Any], others: int = 0) -> Callable[..., Any]:
        """`answer` behind the guard.

        It is called outside the event loop and the webui's worker threads, which may all be waiting for the model. It gets what
        the page sent, or "", which names no job, if that is not a string. If it fails, `others` further outputs stay.
        """

        async def answered(sent: Any = "") -> Any:
            wish = sent if isinstance(sent, str) else ""
            told = await asyncio.get_running_loop().run_in_executor(None, answer, wish)
            if isinstance(told, Placed):
                return self.placed_html(told)
            return self._mark() if told is None else told

        def failed(problems: Sequence[str]) -> Any:
            told = list_html(problems, "problem") + self._mark()
            return [told, *(gr.update() for _ in range(others))] if others else told

        return self._guard.guarded(answered, failed)

    def placed_html(self, placed: Placed) -> str:
        """The message on a submitted job: its name, or its place in the queue."""
        name = escape(placed.name)
        if placed.job is not None:
            return f"<p class='train-lora-hint' data-job='{placed.job.id}'>{name}</p>"
        state = f"is waiting; its place in the queue is {placed.place}." if placed.place else "could not start; see below."
        return f"<p class='train-lora-hint train-lora-queued'>{name} {escape(said(state))}</p>{self._mark()}"

    def _kept(self, wish: str) -> str:
        """Remove what jobs keep (`free`: what may be removed unasked, `states`: the rest), or set its limit."""
        keeper = self._queue.keeper
        return self._hint(keeper.remove(states=wish == "states") if wish in ("free", "states") else keeper.set_limit(wish))

    def fill(self, entry_id: str, *, from_state: bool) -> list[Any]:
        """A message, and a value for every field: a job's settings, which name its own images.

        They have a free name; with `from_state` they resume from its state.
        """
        entry = self._queue.entry(entry_id)
        config = build_config(settings_to_repeat(entry, self._queue.runner.host.lora_folder(), from_state=from_state))
        fields = [self._field(opt, config) for opt in self._options]
        told = f"The form has the settings of {entry.name}" + (
            " and its newest state in Resume from: set Epochs or Steps higher, and press Train."
            if from_state
            else ": change them, and press Train."
        )
        return [self._hint(told), *fields]

    def _field(self, opt: Option, config: TrainConfig) -> Any:
        """The job's value. If folders are hidden, only its own images are named, in a field that is then shown."""
        value = config.value(opt)
        if not self._hides_folders or not opt.is_path:
            return gr.update(value=field_value(opt, value))
        if opt.name in ("data", "reg_data"):
            value = tuple(folder for folder in value if self._queue.owns(folder))
            return gr.update(value=field_value(opt, value), visible=bool(value))
        return gr.update(value=field_value(opt, opt.default))

    def _hint(self, text: str) -> str:
        return hint_html(text) + self._mark()

    def _mark(self) -> str:
        """A serial number, so that every answer differs and its arrival is noticed."""
        return f"<i hidden data-queue-serial='{next(self._serial)}'></i>"
