"""Preview pictures of a LoRA: for its card, and samples between steps and before the first.

A small deterministic sampler draws them on the loaded model with its adapters. It does not touch the host's checkpoint, caches or
global random state. The PNG files name this program as their maker; only such files are ever replaced or removed.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_lora.config.groups import TrainConfig
from lib_lora.config.objective import ObjectiveConfig
from lib_lora.config.prompts import Prompt
from lib_lora.data.caption_processing import in_order
from lib_lora.data.images import Pixels
from lib_lora.data.sizes import Size
from lib_lora.data.tokens import caption_ids
from lib_lora.families.known import SIDE_STEP
from lib_lora.files.atomic import write_atomically
from lib_lora.model.base import BaseModel
from lib_lora.model.conditioning import Conditioning, TextInputs, encode
from lib_lora.objective.loss import noise_schedule
from lib_lora.plan import Plan
from lib_lora.randomness import normal
from lib_lora.training.precision import Precision

# sd-scripts' defaults for what a prompt does not state (`sample_image_inference`); the size is that of the training
GUIDANCE, STEPS = 7.5, 30
LARGEST_PX = 768
MAKER = "sd-webui-train-lora"
_MARK = b"tEXtSoftware\0" + MAKER.encode()
_MARK_WITHIN_BYTES = 256  # the mark is between the size and the pixels


@dataclass(frozen=True)
class PreviewRequest:
    """A picture to draw; `size` in pixels."""

    prompt: str
    size: Size
    steps: int
    seed: int
    guidance: float
    clip_skip: int = 1
    negative: str = ""
    max_token_length: int = 75
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)


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


@torch.no_grad()
def sample(base: BaseModel, request: PreviewRequest, precision: Precision) -> Pixels:
    """The picture, `[height, width, 3]`, drawn with classifier-free guidance."""
    process = noise_schedule(request.objective, base.noise_process)
    velocity, shape = request.objective.v_parameterization, base.family.latent_shape(*request.size)
    latents = normal((1, *shape), request.seed, "sample").to(base.device)
    conditioning = _conditioning(base, request, precision)
    timesteps = [round(t) for t in torch.linspace(process.steps - 1, 0, request.steps + 1).tolist()][:-1]
    for position, t in enumerate(timesteps):
        after = timesteps[position + 1] if position + 1 < len(timesteps) else 0
        predicted = _guided(base, latents, t, conditioning, request.guidance, precision)
        latents = process.denoised_step(latents, predicted, t, after, velocity=velocity)
    pixels = base.decode_latents(latents / base.family.latent_scale)[0].float().cpu()
    scaled = ((pixels.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0)  # [H, W, 3]
    return scaled.nan_to_num().numpy().astype(np.uint8)


def _conditioning(base: BaseModel, request: PreviewRequest, precision: Precision) -> Conditioning:
    """Conditioning of the negative prompt and the prompt, in this order, for an uncropped picture."""
    texts, length, size = (request.negative, request.prompt), request.max_token_length, request.size
    ids = tuple(
        torch.tensor([caption_ids(base.tokenizer, text, length, encoder.pad_id) for text in texts], device=base.device)
        for encoder in base.text_encoders
    )
    sizes = torch.tensor([[*size, 0, 0, *size]] * 2, device=base.device)
    with precision.autocast(base.device):
        return replace(encode(base.text_encoders, TextInputs(ids), request.clip_skip), sizes=sizes)


def _guided(
    base: BaseModel, latents: torch.Tensor, t: int, conditioning: Conditioning, guidance: float, precision: Precision
) -> torch.Tensor:
    timesteps = torch.tensor([t, t], device=base.device)
    with precision.autocast(base.device):
        without, with_prompt = base.predict(latents.repeat(2, 1, 1, 1), timesteps, conditioning).float().chunk(2)
    return without + guidance * (with_prompt - without)


def png(pixels: Pixels) -> bytes:
    """`pixels`, `[height, width, 3]`, as a PNG file with the maker's mark."""
    content, told = io.BytesIO(), PngInfo()
    told.add_text("Software", MAKER)
    Image.fromarray(pixels).save(content, "PNG", pnginfo=told)
    return content.getvalue()


def drawn_by_us(path: Path) -> bool:
    """Whether a file has the maker's mark.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return _MARK in file.read(_MARK_WITHIN_BYTES)
