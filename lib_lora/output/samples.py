"""Pictures of the sample prompts while a run goes on, always from the same noise, so that they can be compared."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lib_lora.config.groups import TrainConfig
from lib_lora.config.prompts import Prompt, read_prompts
from lib_lora.config.reading import samples_are_drawn
from lib_lora.data.hidden_names import hidden_name
from lib_lora.data.sizes import Size
from lib_lora.errors import HostChanged
from lib_lora.events import Event, Note, Phase, Sampled
from lib_lora.families.known import SIDE_STEP
from lib_lora.model.base import BaseModel, Host
from lib_lora.output.atomic import write_atomically
from lib_lora.output.left import Leavings
from lib_lora.output.picture import drawn_by_us, png
from lib_lora.output.result import default_prompt, preview_size
from lib_lora.plan import Plan
from lib_lora.sample import Request, sample
from lib_lora.training.cadence import samples_due
from lib_lora.training.session import Session

# sd-scripts' own values of what a prompt does not say (`sample_image_inference`); the size is that of the training
GUIDANCE, STEPS = 7.5, 30
THUMBNAIL_PX = 256


class Sampler:
    """Draws the prompts when they are due. A failure is told once, and costs the run nothing but its samples."""

    def __init__(
        self, config: TrainConfig, plan: Plan, base: BaseModel, host: Host, session: Session, leavings: Leavings
    ) -> None:
        self._config, self._plan, self._base, self._session, self._leavings = config, plan, base, session, leavings
        self._folder = host.work_folder() / config.run.name / "samples"
        self._hides = host.hides_pictures()
        written = read_prompts(config.run.sample_prompts) if samples_are_drawn(config.run) else []
        self._prompts = written or [Prompt(default_prompt(config, plan))]
        self._failed = False

    def after(self, step: int) -> Iterator[Event]:
        """Draw what is due after `step` updates; called while the adapters are attached."""
        if self._failed or not samples_due(self._config.run, self._plan, step):
            return
        yield Phase("drawing samples")
        paths = []
        try:
            with self._session.result():
                for number, prompt in enumerate(self._prompts):
                    request = self._request(prompt)
                    path = _free(self._folder / self._name(f"{self._config.run.name}_{step:08d}_{number:02d}_{request.seed}"))
                    write_atomically(path, png(sample(self._base, request, self._session.precision)))
                    self._leavings.add(path)
                    paths.append(path)
        except HostChanged:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a model, a picture or a disk meets: what was learned counts more
            self._failed = True
            yield Note(f"The samples could not be drawn ({type(error).__name__}: {error}); the training goes on without them.")
            return
        yield Sampled(step, tuple(paths), tuple(prompt.text for prompt in self._prompts))

    def _name(self, start: str) -> str:
        """What a picture is called; where the host hides pictures it can neither be guessed nor be taken for one."""
        return hidden_name(f"{start}_{secrets.token_hex(8)}.png") if self._hides else f"{start}.png"

    def _request(self, prompt: Prompt) -> Request:
        config, size = self._config, preview_size(self._config)
        return Request(
            prompt.text,
            Size(_whole(prompt.height or size.height), _whole(prompt.width or size.width)),
            prompt.steps or STEPS,
            config.run.seed if prompt.seed is None else prompt.seed,
            GUIDANCE if prompt.guidance is None else prompt.guidance,
            config.text.clip_skip,
            prompt.negative,
            int(config.text.max_token_length),
            config.objective,
        )


def thumbnail(path: Path) -> bytes:
    """A small JPEG of a picture.

    Raises:
        OSError: it is not there, or no picture.
    """
    with Image.open(path) as picture:
        small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=85)
    return content.getvalue()


def _whole(side: int) -> int:
    """A side that has whole latents (sd-scripts rounds down, too)."""
    return side - side % SIDE_STEP


def _free(path: Path) -> Path:
    """`path`, or with the smallest -2, -3 … where a picture that no run drew has its name.

    Raises:
        OSError: what is there cannot be read.
    """
    number, free = 1, path
    while os.path.lexists(free) and not drawn_by_us(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free
