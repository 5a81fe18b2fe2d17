"""Rules of a run's samples."""

from __future__ import annotations

from lib_lora.config.groups import Rule, TrainConfig, is_read
from lib_lora.config.prompts import read_prompts
from lib_lora.errors import Problem


def sample_prompts_can_be_read(config: TrainConfig) -> Problem | None:
    start = "Sample prompts (sample_prompts): "
    if not config.run.sample_prompts or not is_read(config, "sample_prompts"):
        return None
    try:
        prompts = read_prompts(config.run.sample_prompts)
    except ValueError as error:
        return Problem("sample_prompts", f"{start}{error}.")
    if prompts:
        return None
    return Problem("sample_prompts", start + "contains no prompt; enter one, or leave it empty to use the trigger word.")


RULES: tuple[Rule, ...] = (sample_prompts_can_be_read,)
