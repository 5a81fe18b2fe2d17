"""Queue and history below the form. JavaScript draws the list, and presses hidden buttons with the id of a job."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr

from lib_lora.config.groups import TrainConfig, build_config
from lib_lora.config.options import Option
from lib_lora.errors import TrainLoraError
from lib_lora.jobs.history import settings_to_repeat
from lib_lora.jobs.queue import Placed, Queue
from lib_lora.ui.form import shown
from lib_lora.ui.guard import REFUSED, Guard
from lib_lora.ui.report import list_html

OWN_IMAGES = "trainLora.images.filled"  # JavaScript: the form was filled, and names images of its own
CHOSEN = "trainLora.queue.withKey"  # JavaScript that returns the key and the id of the pressed button's job


class QueueSection:
    """The list's place in the tab, and the events of its buttons."""

    def __init__(self, queue: Queue, guard: Guard, *, hides_folders: bool) -> None:
        self._queue, self._guard, self._hides_folders = queue, guard, hides_folders
        self._options: list[Option] = []
        self._serial = itertools.count()

    def build(self, options: Sequence[Option], components: Sequence[Any], key: Any, message: Any) -> None:
        """Create the components. `components` are those of `options`, `key` is the guard's."""
        self._options = list(options)
        with gr.Accordion("Queue and history", open=True, elem_id="train_lora_queue_box"):
            gr.HTML("<div id='train_lora_queue'></div>", elem_id="train_lora_queue_html")
        chosen = gr.Textbox(value="", visible=False, elem_id="train_lora_queue_chosen")
        chosen.do_not_save_to_config = True
        answers: dict[str, Callable[[str], Any]] = {
            "up": self.up,
            "down": self.down,
            "remove": self.remove,
            "resume": self.resume,
            "start": self.release,
            "hold": self.hold,
            "kept": self.kept,
        }
        for name, answer in answers.items():
            self._event(name, answer, [key, chosen], [message])
        for name, fill in {"repeat": self.repeat, "extend": self.extend}.items():
            filled = self._event(name, fill, [key, chosen], [message, *components])
            filled.then(None, inputs=[], outputs=[], _js=OWN_IMAGES)

    def _event(self, name: str, answer: Callable[[str], Any], inputs: list[Any], outputs: list[Any]) -> Any:
        """Add a hidden button that JavaScript presses for a job, with the guard's key."""
        button = gr.Button(name, elem_id=f"train_lora_queue_{name}", elem_classes=["train-lora-hidden"])
        button.do_not_save_to_config = True

        def failed(problems: Sequence[str]) -> Any:
            told = list_html(problems, "problem") + self._mark()
            return [told, *(gr.update() for _ in outputs[1:])] if len(outputs) > 1 else told

        guarded = self._guard.guarded(_with_text(answer), lambda: failed([REFUSED]), failed)
        return button.click(guarded, inputs=inputs, outputs=outputs, _js=CHOSEN, show_progress="hidden", preprocess=False)

    def placed_html(self, placed: Placed) -> str:
        """The message on a submitted job: its name, or its place in the queue."""
        name = escape(placed.name)
        if placed.job is not None:
            return f"<p class='train-lora-hint' data-job='{placed.job.id}'>{name}</p>"
        text = (
            f"{name} is waiting; its place in the queue is {placed.place}."
            if placed.place
            else f"{name} could not start; see below."
        )
        return f"<p class='train-lora-hint train-lora-queued'>{text}</p>{self._mark()}"

    async def up(self, entry: str) -> str:
        """Move a job one place forward."""
        return await self._done(lambda: self._queue.move(entry, -1))

    async def down(self, entry: str) -> str:
        """Move a job one place back."""
        return await self._done(lambda: self._queue.move(entry, 1))

    async def remove(self, entry: str) -> str:
        """Remove a job."""
        return await self._done(lambda: self._queue.remove(entry))

    async def resume(self, entry: str) -> str:
        """Resume a job from its state."""
        return await self._done(lambda: self._queue.resume(entry))

    async def release(self, _entry: str) -> str:
        """Release the queue."""
        return await self._done(self._queue.release)

    async def hold(self, _entry: str) -> str:
        """Hold the queue."""
        return await self._done(self._queue.hold)

    async def kept(self, wish: str) -> str:
        """Remove what jobs keep (`free`: what may be removed unasked, `states`: the rest), or set its limit."""
        keeper = self._queue.keeper
        wishes = {"free": lambda: keeper.remove(states=False), "states": lambda: keeper.remove(states=True)}
        return await self._done(wishes.get(wish, lambda: keeper.set_limit(wish)))

    def repeat(self, entry: str) -> list[Any]:
        """Fill the form with a job's settings, under a free name."""
        return self._filled(entry, from_state=False)

    def extend(self, entry: str) -> list[Any]:
        """Fill the form with a job's settings, to resume from its state under a free name."""
        return self._filled(entry, from_state=True)

    def _filled(self, entry_id: str, *, from_state: bool) -> list[Any]:
        """A message, and a value for every field; the job has its own images."""
        try:
            entry = self._queue.entry(entry_id)
            settings = settings_to_repeat(entry, self._queue.runner.host.lora_folder(), from_state=from_state)
            config = build_config(settings)
        except TrainLoraError as error:
            return self._unfilled(self._problems(error))
        fields = [self._field(opt, config) for opt in self._options]
        told = f"The form has the settings of {entry.name}" + (
            "and its newest state in Resume from: set Epochs or Steps higher, and press Train."
            if from_state
            else ": change them, and press Train."
        )
        return [f"<p class='train-lora-hint'>{escape(told)}</p>{self._mark()}", *fields]

    def _field(self, opt: Option, config: TrainConfig) -> Any:
        """The job's value. If folders are hidden, only its own images are named, in a field that is then shown."""
        value = config.value(opt)
        if not self._hides_folders or not opt.is_path:
            return gr.update(value=shown(opt, value))
        if opt.name == "data":
            value = tuple(folder for folder in value if self._queue.owns(folder))
            return gr.update(value=shown(opt, value), visible=bool(value))
        return gr.update(value=shown(opt, opt.default))

    async def _done(self, change: Callable[[], Any]) -> str:
        """Call `change` outside the event loop and the webui's worker threads, which may all be waiting for the model."""
        try:
            placed = await asyncio.get_running_loop().run_in_executor(None, change)
        except TrainLoraError as error:
            return self._problems(error)
        if isinstance(placed, str):
            return f"<p class='train-lora-hint'>{escape(placed)}</p>{self._mark()}"
        return self.placed_html(placed) if isinstance(placed, Placed) else self._mark()

    def _unfilled(self, told: str) -> list[Any]:
        return [told, *(gr.update() for _ in self._options)]

    def _problems(self, error: TrainLoraError) -> str:
        return list_html(error.problems, "problem") + self._mark()

    def _mark(self) -> str:
        """A serial number, so that every answer differs and its arrival is noticed."""
        return f"<i hidden data-queue-serial='{next(self._serial)}'></i>"


def _with_text(answer: Callable[[str], Any]) -> Callable[[Any], Any]:
    """`answer` for what a page sent; "", which names no job, if that is not a string."""
    if inspect.iscoroutinefunction(answer):

        async def awaited(sent: Any = "") -> Any:
            return await answer(sent if isinstance(sent, str) else "")

        return awaited

    def called(sent: Any = "") -> Any:
        return answer(sent if isinstance(sent, str) else "")

    return called
