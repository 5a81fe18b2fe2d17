"""The field that files are dropped on. What arrives leaves gradio's folder at once, since gradio serves all that lies there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from lib_lora.ui.uploads import take_over


class DroppedFiles(gr.File):  # type: ignore[misc]
    """A `gr.File` whose values are files below a private folder; what was not uploaded is never opened.

    gradio's own copies any file of the machine that a client names into its served folder (gradio 3.41.2 `File.preprocess`).
    """

    is_template = True  # gradio's page shows it as the class above

    def __init__(self, taken: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._taken = taken

    def preprocess(self, x: Any) -> Any:
        """What gradio's page sends -> objects with the private file's path as `name`; None for none."""
        if x is None or x == []:
            return None
        sent = x if isinstance(x, list) else [x]
        served = Path(self.DEFAULT_TEMP_DIR)
        paths = [take_over(entry.get("name"), served, self._taken, entry.get("orig_name")) for entry in sent]
        files = [SimpleNamespace(name=str(path)) for path in paths]
        return files[0] if self.file_count == "single" else files
