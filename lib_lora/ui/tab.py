"""The "Train LoRA" tab. Progress comes by polling from JavaScript, so that it works with and without gradio's queue."""

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
from lib_lora.errors import DatasetError, TrainLoraError
from lib_lora.jobs.queue import Queue
from lib_lora.ui.form import basic_rows, component, form_options, hidden_path_problems, settings_from
from lib_lora.ui.form_continue import AgainBar
from lib_lora.ui.form_files import DroppedFiles
from lib_lora.ui.form_presets import CHANGED, WITH_KEY, PresetBar
from lib_lora.ui.guard import REFUSED, Guard
from lib_lora.ui.memory_row import MemoryRow
from lib_lora.ui.report import list_html, plan_html
from lib_lora.ui.tab_queue import QueueSection
from lib_lora.ui.uploads import TAKEN, keep_uploads

HINT = "<p class='train-lora-hint'>Drop images or choose a folder; the report appears here.</p>"
# the panel of the run, and, unseen, what is said of it to those who hear the page
PROGRESS = "<div id='train_lora_progress'></div><div id='train_lora_announced' role='status'></div>"


class TrainTab:
    """Builds the tab, and answers its events.

    Args:
        queue: takes trainings, and runs them on its runner.
        uploads: private folder for dropped files.
        guard: says who may use the events.
        hides_folders: no field for folders and files of the machine, and nothing that names them is taken.
    """

    def __init__(self, queue: Queue, uploads: Path, guard: Guard, *, hides_folders: bool = False) -> None:
        self._queue, self._runner = queue, queue.runner
        self._uploads = uploads
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
                key = gr.Textbox("", visible=False, elem_id="train_lora_key")  # filled by JavaScript, event by event
                key.do_not_save_to_config = True
                with gr.Column(scale=3, elem_id="train_lora_form"):
                    inputs, files = self._build_form(key)
                with gr.Column(scale=2, elem_id="train_lora_side"):
                    report, memory, message, buttons = self._build_side()
            everything = [key, files, *inputs]
            # pressed by JavaScript a moment after the last change: one listener, so that an older answer never comes last
            renew = gr.Button("Check images", elem_id="train_lora_check", elem_classes=["train-lora-hidden"])
            renew.do_not_save_to_config = True
            silent = {**WITH_KEY, "_js": "trainLora.report.withKey"}
            told = renew.click(self._of_form(self.report, files), inputs=everything, outputs=[report], **silent)
            told.then(self._of_form(self.memory, files), inputs=everything, outputs=[memory], **silent)
            train, *others = buttons
            started = {**WITH_KEY, "_js": "trainLora.train.withKey"}
            train.click(self._of_form(self.start, files), inputs=everything, outputs=[message], **started)
            answers = (self.stop, self.stop_and_keep, self.pause, self.unpause, self.save_now, self.use_best)
            for button, answer in zip(others, answers):
                button.click(self._guarded(answer), inputs=[key], outputs=[message], **WITH_KEY)
            self._jobs.build(self._options, inputs, key, files, message)
        return blocks

    def _guarded(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        return self._guard.guarded(answer, lambda: self._refused([REFUSED]), self._refused)

    def _of_form(self, answer: Callable[..., Any], files: DroppedFiles) -> Callable[..., Any]:
        """`answer` behind the guard, with what was dropped taken over; that comes as the page sent it."""

        def with_files(sent: Any = None, *values: Any) -> Any:
            return answer(files.preprocess(sent), *values)

        return self._guarded(with_files)

    def report(self, files: Any, *values: Any) -> str:
        """What the form describes: the plan, or what is wrong with it. No two answers are the same text: see the JavaScript."""
        return self._report(files, values) + f"<i hidden data-serial='{next(self._serial)}'></i>"

    def _report(self, files: Any, values: Sequence[Any]) -> str:
        try:
            flat = self._settings(files, values)
            if not flat["data"]:
                return HINT
            config, illegal = read_config(flat)
            found = look(config, self._runner.host)
            problems = [*illegal, *found.problems]
        except TrainLoraError as error:
            return list_html(error.problems, "problem")
        if not config.run.name:  # it need not be there yet
            problems = [problem for problem in problems if problem.option != "name"]
        return (plan_html(found.plan) if found.plan and not illegal else "") + list_html(problems, "problem")

    def memory(self, files: Any, *values: Any) -> Any:
        """How much memory the run would take; by itself, since counting takes a moment and the report should not wait."""
        try:
            flat = self._settings(files, values)
            if not flat["data"]:
                return ""
            row = self._memory.html(look(build_config(flat), self._runner.host))
        except TrainLoraError:
            return ""  # told by the report
        return gr.update() if row is None else row

    def start(self, files: Any, *values: Any) -> str:
        """Begin training, or queue it where another runs. A job that begins is answered within a second, whatever happens."""
        try:
            config, illegal = read_config(self._settings(files, values))
            if illegal:  # what is wrong with the others is told with them
                return self._refused([*illegal, *look(config, self._runner.host).problems])
            return self._jobs.placed_html(self._queue.submit(config))
        except TrainLoraError as error:
            return self._refused(error.problems)

    def _refused(self, problems: Sequence[str]) -> str:
        return list_html(problems, "problem") + f"<i hidden data-serial='{next(self._serial)}'></i>"

    async def stop(self) -> str:
        """Ask the run to end. Answered in the event loop: the webui's worker threads may all be waiting for the model."""
        self._runner.stop(keep=False)
        return ""

    async def stop_and_keep(self) -> str:
        """Ask the run to end and to save what is there."""
        self._runner.stop(keep=True)
        return ""

    async def pause(self) -> str:
        """Let the run stand after its step."""
        self._runner.pause()
        return ""

    async def unpause(self) -> str:
        """Let a run that stands go on."""
        self._runner.unpause()
        return ""

    async def save_now(self) -> str:
        """Ask for a file of the moment, and go on."""
        self._runner.save_now()
        return ""

    def use_best(self) -> str:
        """Give the LoRA with the lowest held-out loss the name. No run goes on: this may take its time."""
        try:
            return f"<p class='train-lora-hint'>{escape(self._runner.use_best())}</p>"
        except TrainLoraError as error:
            return self._refused(error.problems)

    def _settings(self, files: Any, values: Sequence[Any]) -> dict[str, Any]:
        flat = settings_from(self._options, values)
        states = {entry.state_folder for entry in self._queue.entries}  # these and images of jobs fill the form
        named = {**flat, "data": tuple(folder for folder in flat["data"] if not self._queue.owns(folder)),
                 "resume": "" if flat["resume"] in states else flat["resume"]}  # fmt: skip
        problems = hidden_path_problems(named) if self._hides_folders else []
        if problems:
            raise DatasetError(problems)
        folders = list(flat["data"])
        dropped = [Path(file.name) for file in files or []]
        if dropped:
            folders.append(str(keep_uploads(dropped, self._uploads, flat["caption_extension"])))
        return {**flat, "data": tuple(folders)}

    def _build_form(self, key: Any) -> tuple[list[Any], Any]:
        """All components in the order of `self._options`, and the drop field."""
        advanced = form_options("advanced")
        taken = self._uploads / TAKEN
        presets = PresetBar(self._guard, taken, self._runner.host.detected_model)
        finished = AgainBar(self._guard, self._runner.host.lora_folder)
        files = DroppedFiles(taken, label="Drop images here", file_count="multiple", elem_id="train_lora_files")
        files.do_not_save_to_config = True
        rows = basic_rows()
        own = list(itertools.takewhile(lambda row: all(opt.declaration.set_by != "preset" for opt in row), rows))
        made = _components(own)  # what a preset leaves as it is stands above it
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
        return [made[opt.name] for opt in self._options], files

    def _build_side(self) -> tuple[Any, Any, Any, list[Any]]:
        report = gr.HTML(HINT, elem_id="train_lora_report")
        memory = gr.HTML("", elem_id="train_lora_memory")
        hidden = {"elem_classes": ["train-lora-hidden"]}  # JavaScript shows them while they mean something
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


def _components(rows: Sequence[Sequence[Option]], *, pairs: bool = False) -> dict[str, Any]:
    """Option name -> component. An option alone has no row around it, unless rows are `pairs`."""
    made: dict[str, Any] = {}
    for row in rows:
        with gr.Row() if pairs or len(row) > 1 else contextlib.nullcontext():
            made.update({opt.name: component(opt) for opt in row})
    return made
