"""The "Train LoRA" tab. JavaScript polls the progress, which works with and without gradio's queue."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora.check import look
from lib_lora.config.groups import build_config, group_titles, read_config
from lib_lora.config.options import Option
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.errors import DatasetError, Problem, TrainLoraError
from lib_lora.jobs.queue import Queue
from lib_lora.ui.form import basic_rows, component, form_options, hidden_path_problems, settings_from
from lib_lora.ui.form_continue import AgainBar
from lib_lora.ui.form_presets import CHANGED, WITH_KEY, PresetBar
from lib_lora.ui.guard import REFUSED, Guard
from lib_lora.ui.report import MemoryRow, list_html, marked, plan_html
from lib_lora.ui.tab_queue import QueueSection

HINT = "<p class='train-lora-hint'>Drop images or choose a folder; the report appears here.</p>"
IMAGES = "<section id='train_lora_images' aria-label='Images'></section>"  # drawn by JavaScript
# the panel of the run, and hidden messages on it for screen readers
PROGRESS = "<div id='train_lora_progress'></div><div id='train_lora_announced' role='status'></div>"


class TrainTab:
    """Builds the tab and answers its events.

    Args:
        queue: takes jobs, and runs them on its runner.
        catalogue: the named datasets.
        taken: private folder for dropped settings files.
        guard: decides who may use the events.
        hides_folders: show no fields for folders and files of the machine, and refuse values that name them.
    """

    def __init__(self, queue: Queue, catalogue: Catalogue, taken: Path, guard: Guard, *, hides_folders: bool = False) -> None:
        self._queue, self._runner = queue, queue.runner
        self._catalogue, self._taken = catalogue, taken
        self._guard = guard
        self._hides_folders = hides_folders
        self._options: list[Option] = []
        self._serial = itertools.count()
        self._jobs = QueueSection(queue, guard, hides_folders=hides_folders)
        self._memory = MemoryRow(self._runner.host)

    def build(self) -> gr.Blocks:
        """The tab's Blocks."""
        with gr.Blocks(analytics_enabled=False) as blocks:
            with gr.Row(elem_id="train_lora_columns", equal_height=False):
                key = gr.Textbox("", visible=False, elem_id="train_lora_key")  # filled by JavaScript at each event
                key.do_not_save_to_config = True
                dataset = gr.Textbox("", visible=False, elem_id="train_lora_dataset")  # the same: the id of the dataset in work
                dataset.do_not_save_to_config = True
                with gr.Column(scale=3, elem_id="train_lora_form"):
                    gr.HTML(IMAGES, elem_id="train_lora_images_box")
                    inputs = self._build_form(key)
                with gr.Column(scale=2, elem_id="train_lora_side"):
                    report, memory, message, buttons = self._build_side()
            everything = [key, dataset, *inputs]
            # JavaScript presses it shortly after the last change; with one listener, an older answer never comes last
            renew = gr.Button("Check images", elem_id="train_lora_check", elem_classes=["train-lora-hidden"])
            renew.do_not_save_to_config = True
            silent = {**WITH_KEY, "_js": "trainLora.report.withKey"}
            told = renew.click(self._guarded(self.report), inputs=everything, outputs=[report], **silent)
            told.then(self._guarded(self.memory), inputs=everything, outputs=[memory], **silent)
            train, *others = buttons
            started = {**WITH_KEY, "_js": "trainLora.train.withKey"}
            train.click(self._guarded(self.start), inputs=everything, outputs=[message], **started)
            answers = (self.stop, self.stop_and_keep, self.pause, self.unpause, self.save_now, self.use_best)
            for button, answer in zip(others, answers):
                button.click(self._guarded(answer), inputs=[key], outputs=[message], **WITH_KEY)
            self._jobs.build(self._options, inputs, key, message)
        return blocks

    def _guarded(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        return self._guard.guarded(answer, lambda: self._refused([REFUSED]), self._refused)

    def report(self, dataset: Any, *values: Any) -> str:
        """The plan of the form's settings, or their problems. Every answer differs by a serial number: see the JavaScript."""
        return self._report(dataset, values) + marked(next(self._serial), settings_from(self._options, values))

    def _report(self, dataset: Any, values: Sequence[Any]) -> str:
        try:
            flat = self._settings(dataset, values)
            if not flat["data"]:
                return HINT
            config, illegal = read_config(flat)
            found = look(config, self._runner.host)
            problems = _together(illegal, found.problems)
        except TrainLoraError as error:
            return list_html(error.problems, "problem")
        if not flat["name"]:  # a name is not needed yet
            problems = [problem for problem in problems if problem.option != "name"]
        return (plan_html(found.plan) if found.plan and not illegal else "") + list_html(problems, "problem")

    def memory(self, dataset: Any, *values: Any) -> Any:
        """The memory row; an event of its own, since the estimate takes a moment and the report should not wait."""
        try:
            flat = self._settings(dataset, values)
            if not flat["data"]:
                return ""
            row = self._memory.html(look(build_config(flat), self._runner.host))
        except TrainLoraError:
            return ""  # the report shows the problems
        return gr.update() if row is None else row

    def start(self, dataset: Any, *values: Any) -> str:
        """Start a job, or queue it if another runs. A job that starts is answered within a second."""
        try:
            config, illegal = read_config(self._settings(dataset, values))
            if illegal:  # report these together with all other problems
                return self._refused(_together(illegal, look(config, self._runner.host).problems))
            return self._jobs.placed_html(self._queue.submit(config))
        except TrainLoraError as error:
            return self._refused(error.problems)

    def _refused(self, problems: Sequence[str]) -> str:
        return list_html(problems, "problem") + f"<i hidden data-serial='{next(self._serial)}'></i>"

    async def stop(self) -> str:
        """Stop the run. Runs in the event loop, since the webui's worker threads may all be waiting for the model."""
        self._runner.stop(keep=False)
        return ""

    async def stop_and_keep(self) -> str:
        """Stop the run and save its LoRA."""
        self._runner.stop(keep=True)
        return ""

    async def pause(self) -> str:
        """Pause the run after its step."""
        self._runner.pause()
        return ""

    async def unpause(self) -> str:
        """Unpause the run."""
        self._runner.unpause()
        return ""

    async def save_now(self) -> str:
        """Save a LoRA after the next step."""
        self._runner.save_now()
        return ""

    def use_best(self) -> str:
        """Give the LoRA with the lowest held-out loss the name. No run is active, so this may take a while."""
        try:
            return f"<p class='train-lora-hint'>{escape(self._runner.use_best())}</p>"
        except TrainLoraError as error:
            return self._refused(error.problems)

    def _settings(self, dataset: Any, values: Sequence[Any]) -> dict[str, Any]:
        flat = settings_from(self._options, values)
        states = {entry.state_folder for entry in self._queue.entries}  # allowed, as are images of jobs: they fill the form
        named = {**flat, "data": tuple(folder for folder in flat["data"] if not self._queue.owns(folder)),
                 "resume": "" if flat["resume"] in states else flat["resume"]}  # fmt: skip
        problems = hidden_path_problems(named) if self._hides_folders else []
        if problems:
            raise DatasetError(problems)
        folders = list(flat["data"])
        if isinstance(dataset, str) and dataset and not self._catalogue.get(dataset).is_empty():
            folders.append(str(self._catalogue.get(dataset).folder))
        return {**flat, "data": tuple(folders)}

    def _build_form(self, key: Any) -> list[Any]:
        """All components in the order of `self._options`."""
        advanced = form_options("advanced")
        presets = PresetBar(self._guard, self._taken, self._runner.host.detected_model)
        finished = AgainBar(self._guard, self._runner.host.lora_folder)
        rows = basic_rows()
        own = list(itertools.takewhile(lambda row: all(opt.declaration.set_by != "preset" for opt in row), rows))
        made = _components(own)  # options that presets do not set are above the presets
        presets.build()
        finished.build(visible=not self._hides_folders)
        made.update(_components(rows[len(own) :]))
        with gr.Accordion("Advanced", open=False, elem_id="train_lora_advanced"):
            for group, title in group_titles().items():
                members = [opt for opt in advanced if opt.group == group]
                with gr.Accordion(title, open=False, elem_id=f"train_lora_group_{group}"):
                    made.update(_components([members[first : first + 2] for first in range(0, len(members), 2)], pairs=True))
        self._options = [*form_options("basic"), *advanced]
        presets.wire(self._options, made, key)
        finished.wire(made, key, CHANGED)
        for opt in self._options if self._hides_folders else ():
            made[opt.name].visible = not opt.is_path
        return [made[opt.name] for opt in self._options]

    def _build_side(self) -> tuple[Any, Any, Any, list[Any]]:
        report = gr.HTML(HINT, elem_id="train_lora_report")
        memory = gr.HTML("", elem_id="train_lora_memory")
        hidden = {"elem_classes": ["train-lora-hidden"]}  # JavaScript shows them while they apply
        with gr.Row(elem_id="train_lora_buttons"):
            train = gr.Button("Train", variant="primary", elem_id="train_lora_train")
            stop = gr.Button("Stop", elem_id="train_lora_stop")
            keep = gr.Button("Stop and keep", elem_id="train_lora_keep")
        with gr.Row(elem_id="train_lora_more_buttons", **hidden):
            pause = gr.Button("Pause", elem_id="train_lora_pause", **hidden)
            go_on = gr.Button("Unpause", elem_id="train_lora_go_on", **hidden)
            save = gr.Button("Save now", elem_id="train_lora_save_now", **hidden)
            best = gr.Button("Use the best", elem_id="train_lora_use_best", **hidden)
        message = gr.HTML("", elem_id="train_lora_message")
        gr.HTML(PROGRESS, elem_id="train_lora_progress_box")
        buttons = [train, stop, keep, pause, go_on, save, best]
        for item in buttons:
            item.do_not_save_to_config = True
        return report, memory, message, buttons


def _together(illegal: Sequence[Problem], others: Sequence[Problem]) -> list[Problem]:
    """Illegal values and the problems of other options; an illegal value counts as its default there."""
    named = {problem.option for problem in illegal} - {""}
    return [*illegal, *(problem for problem in others if problem.option not in named)]


def _components(rows: Sequence[Sequence[Option]], *, pairs: bool = False) -> dict[str, Any]:
    """Option name -> component. A single option gets no row, unless rows are `pairs`."""
    made: dict[str, Any] = {}
    for row in rows:
        with gr.Row() if pairs or len(row) > 1 else contextlib.nullcontext():
            made.update({opt.name: component(opt) for opt in row})
    return made
