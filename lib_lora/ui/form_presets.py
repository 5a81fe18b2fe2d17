"""The part of the form for presets with their reasons, and for import and export of settings files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora.config.groups import TrainConfig, all_options, build_config, options_by_name
from lib_lora.config.names import name_problem
from lib_lora.config.options import Option, field_value, in_words
from lib_lora.config.presets import PRESETS, Choice
from lib_lora.config.rules import config_problems
from lib_lora.errors import ConfigError, bounded
from lib_lora.families.family import DetectedModel, Family
from lib_lora.kohya.export import export_files
from lib_lora.kohya.importing import Imported, import_file
from lib_lora.kohya.report import NEED_ATTENTION, import_parts
from lib_lora.languages.spoken import said
from lib_lora.ui.form import CHANGED, WITH_KEY, settings_from
from lib_lora.ui.form_files import DroppedFiles, ExportedFiles
from lib_lora.ui.guard import Guard
from lib_lora.ui.report import hint_html, list_html, said_html

DEFAULTS = "Defaults"
TITLES = {preset.title: name for name, preset in PRESETS.items()}
EXPORTS = {
    "Settings (JSON)": "ours",
    "sd-scripts (TOML)": "toml",
    "kohya_ss (JSON)": "json",
    "sd-scripts folders (TOML)": "dataset",
}


def set_options() -> list[Option]:
    """The fields that a preset or a file may set."""
    return [opt for opt in all_options() if opt.declaration.place != "none" and opt.declaration.set_by != "person"]


class PresetBar:
    """Presets, import and export. `detected` returns the detected model."""

    def __init__(self, guard: Guard, taken: Path, detected: Callable[[], DetectedModel | None]) -> None:
        self._guard, self._taken, self._detected = guard, taken, detected

    def build(self) -> None:
        """Create the components; `wire` connects them once the form exists."""
        with gr.Row(elem_id="train_lora_presets"):
            self.preset = gr.Dropdown(
                choices=[said(title) for title in (DEFAULTS, *TITLES)], value=None, label="Preset", elem_id="train_lora_preset",
                info="Settings to start from. Name, image folder and trigger word stay as they are.",
            )  # fmt: skip
        self.told = gr.HTML("", elem_id="train_lora_preset_told")
        with gr.Accordion("Import and export", open=False, elem_id="train_lora_files_of_settings"):
            self.file = DroppedFiles(
                self._taken,
                label="Import (kohya_ss JSON, sd-scripts TOML or our JSON)",
                file_types=[".json", ".toml"],
                elem_id="train_lora_import",
            )
            with gr.Row():
                self.form = gr.Dropdown(
                    choices=[said(form) for form in EXPORTS],
                    value=said(next(iter(EXPORTS))),
                    label="Export as",
                    elem_id="train_lora_form_of",
                )
                self.export = gr.Button("Export", elem_id="train_lora_export")
            self.exported = ExportedFiles(label="Exported", interactive=False, visible=False, elem_id="train_lora_exported")

    def wire(self, options: Sequence[Option], components: Mapping[str, Any], key: Any) -> None:
        """Connect to the form. `options`: those of `components`, in form order; `key`: see `Guard`."""
        self._options = list(options)
        fields = [components[opt.name] for opt in set_options()]
        choose = self._guarded(choose_preset, len(fields))
        chosen = self.preset.input(choose, inputs=[key, self.preset], outputs=[self.told, *fields], **WITH_KEY)
        read = self._guarded(lambda sent: read_file(self.file.preprocess(sent)), len(fields), first=[gr.update()])
        imported = self.file.upload(read, inputs=[key, self.file], outputs=[self.preset, self.told, *fields], **WITH_KEY)
        for event in (chosen, imported):
            event.then(None, inputs=[], outputs=[], _js=CHANGED)
        everything = [components[opt.name] for opt in self._options]
        write = self._guarded(self.write, 1)
        self.export.click(write, inputs=[key, self.form, *everything], outputs=[self.told, self.exported], **WITH_KEY)

    def _guarded(self, answer: Callable[..., Any], unchanged: int, first: Sequence[Any] = ()) -> Callable[..., Any]:
        """`answer` behind the guard. On errors, messages go to the output after `first`, and `unchanged` more outputs stay."""

        def told(problems: Sequence[str]) -> list[Any]:
            return [*first, list_html(problems, "problem"), *(gr.update() for _ in range(unchanged))]

        return self._guard.guarded(answer, told)

    def write(self, form: Any, *values: Any) -> list[Any]:
        """The form's settings as files.

        Raises:
            ConfigError: they are not valid.
        """
        config = build_config(settings_from(self._options, values))
        problems = [problem for problem in config_problems(config) if problem.option != "name"]
        if problems:
            raise ConfigError(problems)
        name = config.run.name if name_problem(config.run.name) is None else "train_lora"
        form = _chosen(form, EXPORTS)
        if form is None:
            raise ConfigError([f"Export as: must be one of {', '.join(EXPORTS)}."])
        detected = self._detected()
        with tempfile.TemporaryDirectory(prefix="train-lora-") as folder:
            written = texts(config, EXPORTS[form], Path(folder) / name, detected.family if detected else None)
            for path, text in written.items():
                path.write_text(text, encoding="utf-8")
            paths = [self.exported.placed(path) for path in written]
        return [gr.update(), gr.update(value=paths[0] if len(paths) == 1 else paths, visible=True)]


def texts(config: TrainConfig, kind: str, stem: Path, family: Family | None) -> dict[Path, str]:
    """Path -> text of the files to export; `family`: of the detected model."""
    if kind == "ours":
        return {stem.with_name(f"{stem.name}.json"): json.dumps(config.to_flat(), indent=2, ensure_ascii=False) + "\n"}
    end = {"toml": ".toml", "json": "-kohya_ss.json", "dataset": "-dataset.toml"}[kind]
    return export_files(config, kind, stem.with_name(stem.name + end), relative=True, family=family)  # type: ignore[arg-type]


def choose_preset(title: Any) -> list[Any]:
    """The reasons, and a value for every field: the preset's or the default; options that no preset sets stay."""
    chosen = _chosen(title, (DEFAULTS, *TITLES))
    if title is not None and chosen is None:
        raise ConfigError([f"Preset: must be one of {', '.join([DEFAULTS, *TITLES])}."])
    preset = PRESETS[TITLES[chosen]] if chosen in TITLES else None
    fields = _fields(build_config(preset.settings() if preset else {}))
    if preset is None:
        return ["", *fields]
    rows = "".join(map(_row, preset.choices))
    return [f"{hint_html(preset.text)}<table class='train-lora-report'>{rows}</table>", *fields]


def _row(choice: Choice) -> str:
    opt = options_by_name()[choice.name]
    told = escape(in_words(opt, choice.value))
    return f"<tr><th>{escape(opt.declaration.label)}</th><td>{told}</td><td>{escape(choice.why)}</td></tr>"


def _chosen(shown: Any, choices: Iterable[str]) -> str | None:
    """The choice that a list shows in the user's language; None if it is none. gradio shows a choice as it sends it."""
    return next((choice for choice in choices if shown in (choice, said(choice))), None)


def _fields(config: TrainConfig, named: Collection[str] = ()) -> list[Any]:
    """The values of the fields that a preset may set, and of those `named`; the others stay."""
    return [
        gr.update(value=field_value(opt, config.value(opt)))
        if opt.declaration.set_by == "preset" or opt.name in named
        else gr.update()
        for opt in set_options()
    ]


def read_file(file: Any) -> list[Any]:
    """The cleared preset, a report on the file's keys, and the new values; all unchanged if the file cannot be read."""
    unchanged = [gr.update() for _ in set_options()]
    if file is None:
        return [gr.update(), "", *unchanged]
    try:
        found = import_file(Path(file.name), follow=False)
    except ConfigError as error:
        told = list_html([problem.replace(str(file.name), Path(file.name).name) for problem in error.problems], "problem")
        return [gr.update(), told, *unchanged]
    return [gr.update(value=None), import_html(found), *_fields(found.config(), found.flat)]


def import_html(found: Imported) -> str:
    """The import report, with the parts that need attention unfolded."""
    text = ""
    for name, head, members in import_parts(found):
        attention = name in NEED_ATTENTION
        lines = {member.line(): member.line(said) for member in members}
        inner = said_html([lines.get(line) or said(line) for line in bounded(list(lines))], "problem" if attention else "note")
        text += f"<details{' open' if attention else ''}><summary>{said(head)}: {len(members)}</summary>{inner}</details>"
    return text
