"""What is known of a request's images, model and device, for advice on its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lib_lora.advice.judgement import Judgement
from lib_lora.advice.judgements import judge
from lib_lora.advice.mends import with_mends
from lib_lora.advice.situation import NORMAL, Kind, Situation, captions_of, photos_of
from lib_lora.check import Findings
from lib_lora.config.groups import options_by_name
from lib_lora.config.optimizer_specs import OPTIMIZERS
from lib_lora.config.options import field_value
from lib_lora.data.tokens import load_tokenizer, plain_ids
from lib_lora.datasets.caption_tokens import token_counts
from lib_lora.errors import Problem
from lib_lora.families.sd1 import SD1

_EIGHT_BIT = "AdamW8bit"


def situation_of(found: Findings, device: torch.device, *, kind: Kind = "person", thoroughness: int = NORMAL) -> Situation:
    """The situation of a request. Without a model it is that of an SD 1.x.

    Args:
        found: what was found out about the request.
        device: on which it runs.
        kind, thoroughness: the user's answers.
    """
    config, detected = found.config, found.detected
    photos, regularisation = photos_of(found.dataset, config.data.repeats)
    learned = [sample for sample in found.dataset.samples if not sample.is_reg]
    texts = [sample.caption if sample.has_caption_file else "" for sample in learned]
    return Situation(
        kind=kind,
        thoroughness=thoroughness,
        name=config.run.name,
        photos=photos,
        regularisation=regularisation,
        captions=captions_of(texts),
        longest_caption=max(token_counts(texts, config.text), default=0),
        family=detected.family if detected else SD1,
        free_gb=free_gb(device),
        device=device.type,
        eight_bit=device.type == "cuda" and OPTIMIZERS[_EIGHT_BIT].installed(),
        predicts_v=bool(detected and detected.v_from) or config.objective.v_parameterization,
    )


def free_gb(device: torch.device) -> float | None:
    """GiB of GPU memory that a run may use, with those that the loaded model takes; None on another device."""
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device.index)
    return float(free + torch.cuda.memory_reserved(device.index)) / 2**30


def judged(found: Findings, problems: Sequence[Problem], device: torch.device) -> tuple[list[Judgement], list[Judgement]]:
    """The problems of a request with what mends them, and what is odd about it if there are none but that of the name."""
    situation = situation_of(found, device)
    mended = with_mends(problems, found.config, situation)
    if any(problem.option != "name" for problem in problems):
        return mended, []
    tokenizer = load_tokenizer()
    return mended, judge(found.config, situation, ids=lambda text: plain_ids(tokenizer, text))


def fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """Option name -> value as its field in the form holds it."""
    options = options_by_name()
    return {name: field_value(options[name], value) for name, value in values.items()}
