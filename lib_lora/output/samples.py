"""Samples of the prompts during a run, always from the same noise so that they can be compared."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lib_lora.config.groups import TrainConfig
from lib_lora.config.prompts import Prompt, read_prompts
from lib_lora.data.hidden_names import hidden_name
from lib_lora.errors import HostChanged
from lib_lora.events import Event, Note, Phase, Sampled
from lib_lora.files.atomic import free_path
from lib_lora.host import Host
from lib_lora.model.base import BaseModel
from lib_lora.output.preview import default_prompt, draw_preview, drawn_by_us, preview_request
from lib_lora.output.written_files import WrittenFiles
from lib_lora.plan import Plan
from lib_lora.training.cadence import samples_due
from lib_lora.training.trainer import Trainer

THUMBNAIL_PX = 256


class Sampler:
    """Draws the samples when they are due. After a failure, reported as a note, the run continues without samples."""

    def __init__(
        self, config: TrainConfig, plan: Plan, base: BaseModel, host: Host, trainer: Trainer, written_files: WrittenFiles
    ) -> None:
        self._config, self._plan, self._base, self._trainer, self._written_files = config, plan, base, trainer, written_files
        self._folder = host.work_folder() / config.run.name / "samples"
        self._hides = host.hides_pictures()
        self._prompts = self._written() if config.run.draws_samples else []
        self._failed = False
        self._drawn: int | None = None  # the step of the newest samples

    def _written(self) -> list[Prompt]:
        """The prompts of the option, else the default one."""
        return read_prompts(self._config.run.sample_prompts) or [default_prompt(self._config, self._plan)]

    def after(self, step: int, *, asked: bool = False) -> Iterator[Event]:
        """Draw the samples that are due after `step` updates, or `asked` for and not there yet; adapters must be attached."""
        if self._failed or self._drawn == step or not (asked or samples_due(self._config.run, self._plan, step)):
            return
        yield Phase("generating samples")
        paths = []
        try:
            self._prompts = self._prompts or self._written()  # of a run that draws no others they are read now
            with self._trainer.result():
                for number, prompt in enumerate(self._prompts):
                    request = preview_request(self._config, prompt)
                    path = self._folder / self._name(f"{self._config.run.name}_{step:08d}_{number:02d}_{request.seed}")
                    path = free_path(path, path.suffix, _is_taken)
                    draw_preview(path, self._base, request, self._trainer.precision)
                    self._written_files.add(path)
                    paths.append(path)
        except HostChanged:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model, a picture or a disk meets: what was learned counts more
            self._failed = True
            yield Note(f"The samples could not be generated ({type(error).__name__}: {error}); the run continues without them.")
            return
        self._drawn = step
        yield Sampled(step, tuple(paths), tuple(prompt.text for prompt in self._prompts))

    def _name(self, start: str) -> str:
        """The file name of a picture; if the host hides pictures it cannot be guessed and has no picture's ending."""
        return hidden_name(f"{start}_{secrets.token_hex(8)}.png") if self._hides else f"{start}.png"


def thumbnail(path: Path, side: int = THUMBNAIL_PX) -> bytes:
    """The picture at `path` as a JPEG of at most `side` pixels a side.

    Raises:
        OSError: it does not exist or is not a picture.
    """
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((side, side))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()


def _is_taken(path: Path) -> bool:
    """Whether a picture that no run drew has this name.

    Raises:
        OSError: an existing file cannot be read.
    """
    return os.path.lexists(path) and not drawn_by_us(path)
