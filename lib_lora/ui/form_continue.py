"""The part of the form that chooses a finished LoRA to continue from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from lib_lora.config.groups import options_by_name
from lib_lora.config.options import field_value
from lib_lora.errors import ConfigError
from lib_lora.training.continue_settings import continue_settings
from lib_lora.ui.form import CHANGED, WITH_KEY
from lib_lora.ui.guard import Guard
from lib_lora.ui.report import list_html

LONGEST_SHOWN = 200
NOTHING = "none (new LoRA)"
FIELDS = ("network_weights", "dim_from_weights", "adapter_type", "rank", "alpha", "conv_dim", "conv_alpha", "unit")


class AgainBar:
    """The choice and its refresh button. `folder` returns the host's LoRA folder; `guard` checks the events."""

    def __init__(self, guard: Guard, folder: Callable[[], Path]) -> None:
        self._guard = guard
        self._folder = folder

    def build(self, *, visible: bool = True) -> None:
        """Create the components; `wire` connects them once the form exists."""
        with gr.Accordion("Continue from a finished LoRA", open=False, visible=visible, elem_id="train_lora_again_box"):
            with gr.Row():
                self.choice = gr.Dropdown(
                    choices=self.names(), value=NOTHING, label="Continue from", elem_id="train_lora_again",
                    info="Continues training it under a new name. Type, ranks and alphas are taken from it.",
                )  # fmt: skip
                self.refresh = gr.Button("Refresh", elem_id="train_lora_again_refresh")
            self.told = gr.HTML("", elem_id="train_lora_again_told")

    def wire(self, components: Mapping[str, Any], key: Any) -> None:
        """Connect to the form's `components`; `key`: see `Guard`."""
        fields = [components[name] for name in FIELDS]
        choose = self._guard.guarded(self.choose, self._told)
        look = self._guard.guarded(self.look, lambda problems: self._told(problems)[:2])
        chosen = self.choice.input(choose, inputs=[key, self.choice], outputs=[self.told, *fields], **WITH_KEY)
        chosen.then(None, inputs=[], outputs=[], _js=CHANGED)
        self.refresh.click(look, inputs=[key], outputs=[self.told, self.choice], **WITH_KEY)

    def names(self) -> list[str]:
        """The choices: every LoRA below the folder, except paths with a part that starts with a dot."""
        folder = self._folder()
        found = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
        relative = [path.relative_to(folder) for path in found]
        return [NOTHING, *(str(path) for path in relative if not any(part.startswith(".") for part in path.parts))]

    def look(self) -> list[Any]:
        """Refresh the choices."""
        return ["", gr.update(choices=self.names())]

    def choose(self, name: Any) -> list[Any]:
        """A description of the LoRA, and values for the fields that must match it.

        Raises:
            ConfigError, LoraFileError: it cannot be continued from.
        """
        if not name or name == NOTHING:
            return ["", gr.update(value=""), gr.update(value=False), *[gr.update() for _ in FIELDS[2:]]]
        if not isinstance(name, str) or name not in self.names():
            named = str(name)[:LONGEST_SHOWN]
            raise ConfigError([f"Continue from: {named!r} is no longer in the LoRA folder; press Refresh."])
        found = continue_settings(self._folder() / name)
        told = list_html([found.description], "note")
        settings, options = found.settings, options_by_name()
        return [told, *(gr.update(value=field_value(options[n], settings[n])) if n in settings else gr.update() for n in FIELDS)]

    def _told(self, problems: Sequence[str]) -> list[Any]:
        return [list_html(problems, "problem"), *[gr.update() for _ in FIELDS]]
