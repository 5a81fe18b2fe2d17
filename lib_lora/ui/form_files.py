"""File components. Uploads are moved out of gradio's folder at once, since gradio serves everything in it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr

from lib_lora.errors import DatasetError
from lib_lora.ui.uploads import take_over

MOST_FILES = 20_000


class DroppedFiles(gr.File):  # type: ignore[misc]
    """A `gr.File` whose values are files below a private folder; files that were not uploaded are never opened.

    `gr.File` copies any file that a client names into its served folder (gradio 3.41.2 `File.preprocess`).
    """

    is_template = True  # gradio's page shows it as its base class

    def __init__(self, taken: Path, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._taken = taken

    def preprocess(self, x: Any) -> Any:
        """What gradio's page sends -> objects with the private file's path as `name`; None if there is no file.

        It moves files, so the events' answers call it after the guard has checked the key.

        Raises:
            DatasetError: `x` is not a list of files.
        """
        if x is None or x == []:
            return None
        sent = x if isinstance(x, list) else [x]
        if len(sent) > MOST_FILES or not all(isinstance(entry, dict) for entry in sent):
            raise DatasetError([f"Dropped files: the page sent no list of up to {MOST_FILES} files; drop them again."])
        served = Path(self.DEFAULT_TEMP_DIR)
        paths = [take_over(entry.get("name"), served, self._taken, entry.get("orig_name")) for entry in sent]
        files = [SimpleNamespace(name=str(path)) for path in paths]
        return files[0] if self.file_count == "single" else files


class ExportedFiles(gr.File):  # type: ignore[misc]
    """A `gr.File` for downloads."""

    is_template = True

    def placed(self, path: Path) -> str:
        """The path of the copy that gradio serves, made now so that an error can be reported; a partial copy is removed.

        gradio makes its copy after the event (gradio 3.41.2 `File.postprocess`), and then reuses this one.

        Raises:
            OSError: the copy cannot be written.
        """
        before = set(self.temp_files)
        try:
            return str(self.make_temp_copy_if_needed(path))
        except OSError:
            if path.is_file() and self.temp_files == before:
                (Path(self.DEFAULT_TEMP_DIR) / self.hash_file(path) / path.name).unlink(missing_ok=True)
            raise
