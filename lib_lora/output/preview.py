"""Preview pictures of a LoRA: for its card, and samples between steps and before the first."""

from __future__ import annotations

from pathlib import Path

from lib_lora.config.groups import TrainConfig
from lib_lora.config.prompts import Prompt
from lib_lora.data.caption_processing import in_order
from lib_lora.data.sizes import Size
from lib_lora.families.known import SIDE_STEP
from lib_lora.files.atomic import write_atomically
from lib_lora.model.base import BaseModel
from lib_lora.output.picture import png
from lib_lora.output.sampler import PreviewRequest, sample
from lib_lora.plan import Plan
from lib_lora.training.precision import Precision

# sd-scripts' defaults for what a prompt does not state (`sample_image_inference`); the size is that of the training
GUIDANCE, STEPS = 7.5, 30
LARGEST_PX = 768


def default_prompt(config: TrainConfig, plan: Plan) -> Prompt:
    """The trigger word, or the whole first caption if there is none."""
    return Prompt(config.text.trigger or in_order(config.text, plan.samples[0].caption, config.run.seed))


def preview_size(config: TrainConfig) -> Size:
    """The training resolution as a square, at most LARGEST_PX."""
    side = min(config.data.resolution, LARGEST_PX)
    return Size(side, side)


def preview_request(config: TrainConfig, prompt: Prompt) -> PreviewRequest:
    """The request for `prompt`; what it does not state comes from the run's settings."""
    size = preview_size(config)
    return PreviewRequest(
        prompt=prompt.text,
        negative=prompt.negative,
        size=Size(_whole(prompt.height or size.height), _whole(prompt.width or size.width)),
        steps=prompt.steps or STEPS,
        seed=config.run.seed if prompt.seed is None else prompt.seed,
        guidance=GUIDANCE if prompt.guidance is None else prompt.guidance,
        clip_skip=config.text.clip_skip,
        max_token_length=int(config.text.max_token_length),
        objective=config.objective,
    )


def draw_preview(path: Path, base: BaseModel, request: PreviewRequest, precision: Precision) -> None:
    """Draw `request` with the attached adapters and write it as a PNG at `path`."""
    write_atomically(path, png(sample(base, request, precision)))


def _whole(side: int) -> int:
    """`side` rounded down to a multiple of SIDE_STEP (as sd-scripts)."""
    return side - side % SIDE_STEP
