"""The "Train LoRA" tab. JavaScript polls the progress, which works with and without gradio's queue."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora.check import look
from lib_lora.config.groups import build_config, group_titles, read_config
from lib_lora.config.options import Option
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.errors import ConfigError, DatasetError, TrainLoraError
from lib_lora.jobs.queue import Queue
from lib_lora.languages.spoken import said
from lib_lora.ui.advised import judged
from lib_lora.ui.form import WITH_KEY, basic_rows, component, form_options, settings_from
from lib_lora.ui.form_continue import AgainBar
from lib_lora.ui.form_presets import PresetBar
from lib_lora.ui.form_restored import RestoredForm
from lib_lora.ui.guard import Guard
from lib_lora.ui.hidden_paths import hidden_path_problems
from lib_lora.ui.report import MemoryRow, hint_html, judged_html, list_html, marked, plan_html, reported, together
from lib_lora.ui.tab_queue import QueueSection

HINT = hint_html("Drop images or choose a folder; the report appears here.")
# drawn by JavaScript
IMAGES = "<section id='train_lora_images' aria-label='{}'></section>"
ADVICE = "<section id='train_lora_advice' aria-label='{}'></section>"
FIELDS = "train-lora-watched"  # a change in a part of the page of this class renews the report
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
        stops = [partial(self._runner.stop, keep=keep) for keep in (False, True)]
        orders = [*stops, self._runner.pause, self._runner.unpause, self._runner.save_now, self._runner.sample_now]
        # of the buttons after Train; no run is active when the best one is used, so that may take a while
        self.answers = [*map(_at_once, orders), lambda: hint_html(self._runner.use_best())]

    def build(self) -> gr.Blocks:
        """The tab's Blocks."""
        with gr.Blocks(analytics_enabled=False) as blocks:
            with gr.Row(elem_id="train_lora_columns", equal_height=False):
                key = gr.Textbox("", visible=False, elem_id="train_lora_key")  # filled by JavaScript at each event
                dataset = gr.Textbox("", visible=False, elem_id="train_lora_dataset")  # ID, or ID|ID of regularisation images
                first = list(
                    itertools.takewhile(lambda row: all(opt.declaration.set_by != "preset" for opt in row), basic_rows())
                )
                with gr.Column(scale=3, elem_id="train_lora_left", elem_classes=[FIELDS]):
                    gr.HTML(IMAGES.format(said("Images")), elem_id="train_lora_images_box")
                    made = _components([row for row in first if any(opt.is_path for opt in row)])
                with gr.Column(scale=2, elem_id="train_lora_side"):
                    with gr.Column(elem_id="train_lora_first", elem_classes=[FIELDS]):
                        made.update(_components([row for row in first if not any(opt.is_path for opt in row)]))
                    gr.HTML(ADVICE.format(said("Advice on settings")), elem_id="train_lora_advice_box")
                    report, memory, message, buttons = self._build_run()
                    with gr.Column(elem_id="train_lora_form", elem_classes=[FIELDS]):
                        self._build_form(made, basic_rows()[len(first) :], key)
            inputs = [made[opt.name] for opt in self._options]
            everything = [key, dataset, *inputs]
            # JavaScript presses it shortly after the last change; with one listener, an older answer never comes last
            renew = gr.Button("Check images", elem_id="train_lora_check", elem_classes=["train-lora-hidden"])
            silent = {**WITH_KEY, "_js": "trainLora.report.withKey"}
            told = renew.click(self._guarded(self.report), inputs=everything, outputs=[report], **silent)
            told.then(self._guarded(self.memory), inputs=everything, outputs=[memory], **silent)
            train, *others = buttons
            started = {**WITH_KEY, "_js": "trainLora.train.withKey"}
            train.click(self._guarded(self.start), inputs=everything, outputs=[message], **started)
            for button, answer in zip(others, self.answers):
                button.click(self._guarded(answer), inputs=[key], outputs=[message], **WITH_KEY)
            self._jobs.build(self._options, inputs, key, message)
            RestoredForm(self._guard).wire(self._options, made, key)
        for part in blocks.blocks.values():  # else the webui stores the present defaults and bounds in ui-config.json
            part.do_not_save_to_config = True
        return blocks

    def _guarded(self, answer: Callable[..., Any]) -> Callable[..., Any]:
        return self._guard.guarded(answer, self._refused)

    def report(self, dataset: Any, *values: Any) -> str:
        """The plan of the form's settings, or their problems."""
        return self._report(dataset, values) + marked(next(self._serial), settings_from(self._options, values))

    def _report(self, dataset: Any, values: Sequence[Any]) -> str:
        flat = self._settings(dataset, values)
        if not flat["data"]:
            return HINT
        config, illegal = read_config(flat)
        found = look(config, self._runner.host)
        plan, problems = reported(found, illegal)
        mended, odd = judged(found, problems, self._runner.host.device())
        return judged_html(odd, "odd") + (plan_html(plan) if plan else "") + judged_html(mended, "problem")

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
        config, illegal = read_config(self._settings(dataset, values))
        if illegal:  # report these together with all other problems
            raise ConfigError(together(illegal, look(config, self._runner.host).problems))
        return self._jobs.placed_html(self._queue.submit(config))

    def _refused(self, problems: Sequence[str]) -> str:
        return list_html(problems, "problem") + self._mark()

    def _mark(self) -> str:
        """A serial number, by which every answer differs: see the JavaScript."""
        return f"<i hidden data-serial='{next(self._serial)}'></i>"

    def _settings(self, dataset: Any, values: Sequence[Any]) -> dict[str, Any]:
        flat = settings_from(self._options, values)
        states = {entry.state_folder for entry in self._queue.entries}  # allowed, as are images of jobs: they fill the form
        others = {name: tuple(folder for folder in flat[name] if not self._queue.owns(folder)) for name in ("data", "reg_data")}
        named = {**flat, **others, "resume": "" if flat["resume"] in states else flat["resume"]}
        problems = hidden_path_problems(named) if self._hides_folders else []
        if problems:
            raise DatasetError(problems)
        data, _, reg_data = dataset.partition("|") if isinstance(dataset, str) else ("", "", "")
        folders = {name: (*flat[name], *self._catalogue.folders(id_)) for name, id_ in (("data", data), ("reg_data", reg_data))}
        return {**flat, **folders}

    def _build_form(self, made: dict[str, Any], rows: Sequence[Sequence[Option]], key: Any) -> None:
        """The form without the options in `made`, to which its components are added, by option."""
        advanced = form_options("advanced")
        presets = PresetBar(self._guard, self._taken, self._runner.host.detected_model)
        finished = AgainBar(self._guard, self._runner.host.lora_folder)
        presets.build()
        finished.build(visible=not self._hides_folders)
        made.update(_components(rows))
        with gr.Accordion("Advanced", open=False, elem_id="train_lora_advanced"):
            for group, title in group_titles().items():
                members = [opt for opt in advanced if opt.group == group]
                with gr.Accordion(title, open=False, elem_id=f"train_lora_group_{group}"):
                    made.update(_components([members[first : first + 2] for first in range(0, len(members), 2)], pairs=True))
        self._options = [*form_options("basic"), *advanced]
        presets.wire(self._options, made, key)
        finished.wire(made, key)
        for opt in self._options if self._hides_folders else ():
            made[opt.name].visible = not opt.is_path

    def _build_run(self) -> tuple[Any, Any, Any, list[Any]]:
        """The buttons and the progress of a run, and below them the report, which may be long."""
        hidden = {"elem_classes": ["train-lora-hidden"]}  # JavaScript shows them while they apply
        with gr.Row(elem_id="train_lora_buttons"):
            train = gr.Button("Train", variant="primary", elem_id="train_lora_train")
            stop = gr.Button("Stop", elem_id="train_lora_stop")
            keep = gr.Button("Stop and keep", elem_id="train_lora_keep")
        with gr.Row(elem_id="train_lora_more_buttons", **hidden):
            pause = gr.Button("Pause", elem_id="train_lora_pause", **hidden)
            go_on = gr.Button("Unpause", elem_id="train_lora_go_on", **hidden)
            save = gr.Button("Save now", elem_id="train_lora_save_now", **hidden)
            sample = gr.Button("Sample now", elem_id="train_lora_sample_now", **hidden)
            best = gr.Button("Use the best", elem_id="train_lora_use_best", **hidden)
        message = gr.HTML("", elem_id="train_lora_message")
        gr.HTML(PROGRESS, elem_id="train_lora_progress_box")
        report = gr.HTML(HINT, elem_id="train_lora_report")
        memory = gr.HTML("", elem_id="train_lora_memory")
        return report, memory, message, [train, stop, keep, pause, go_on, save, sample, best]


def _at_once(order: Callable[[], None]) -> Callable[[], Awaitable[str]]:
    """`order` in the event loop, since the webui's worker threads may all be waiting for the model; the answer is empty."""

    async def given() -> str:
        order()
        return ""

    return given


def _components(rows: Sequence[Sequence[Option]], *, pairs: bool = False) -> dict[str, Any]:
    """Option name -> component. A single option gets no row, unless rows are `pairs`."""
    made: dict[str, Any] = {}
    for row in rows:
        with gr.Row() if pairs or len(row) > 1 else contextlib.nullcontext():
            made.update({opt.name: component(opt) for opt in row})
    return made
