"""All pictures of a run use the same request: the preview, those between steps, and those before the first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lib_lora.output.preview as preview_room
from lib_lora.events import Finished, Sampled
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config

TAGS = "zebra, apple, moon, 1girl, lamp, kite, boat, fern"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests for pictures; each picture is grey."""
    found: list[Any] = []

    def sample(base: object, request: Any, precision: object) -> np.ndarray:
        found.append(request)
        return np.full((*request.size, 3), 128, dtype=np.uint8)

    monkeypatch.setattr(preview_room, "sample", sample)
    return found


def drawn(photos: Path, checkpoint: Path, out: Path, **flat: Any) -> list[Any]:
    config = small_config(photos, out, steps=1, sample_every_n_steps=1, sample_at_first=True, preview_steps=2, **flat)
    events = list(train(config, StandaloneHost(checkpoint, out / "out"), RunControl()))
    paths = [path for event in events if isinstance(event, Sampled) for path in event.paths]
    paths += [event.path.with_suffix(".png") for event in events if isinstance(event, Finished) and event.path]
    return paths


def test_card_and_samples_are_one_request(photos: Path, mini_checkpoint: Path, tmp_path: Path, asked: list[Any]) -> None:
    """As long prompts are read as in the training, and as strong as sd-scripts draws; only the card's steps are its own."""
    paths = drawn(photos, mini_checkpoint, tmp_path, max_token_length="150", clip_skip=2, seed=7)
    first, between, card = (dataclasses.replace(request, steps=2) for request in asked)
    assert first == between == card
    assert [request.steps for request in asked] == [30, 30, 2]
    assert (card.prompt, card.guidance, card.max_token_length, card.clip_skip, card.seed) == ("ohwx", 7.5, 150, 2, 7)
    assert len(paths) == 3 and all(Image.open(path).format == "PNG" for path in paths)


def test_a_prompt_s_steps_and_sides_win(photos: Path, mini_checkpoint: Path, tmp_path: Path, asked: list[Any]) -> None:
    drawn(photos, mini_checkpoint, tmp_path, sample_prompts="a blob --s 3 --w 71 --h 64")
    sample, _, card = asked
    assert (sample.prompt, sample.steps, *sample.size) == ("a blob", 3, 64, 64)
    assert (card.prompt, card.steps) == ("ohwx", 2), "the card's prompt is the trigger"


@pytest.mark.parametrize(
    ("caption", "prompt", "flat"),
    [
        (TAGS, TAGS, {"shuffle_caption": True}),
        (TAGS, TAGS, {"caption_tag_dropout_rate": 1.0, "token_warmup_step": 5}),
        ("zebra, apple ||| moon, lamp", "zebra, apple, moon, lamp", {"shuffle_caption": True, "keep_tokens_separator": "|||"}),
        ("zebra;;;apple, moon", "zebra,apple, moon", {"shuffle_caption": True, "secondary_separator": ";;;"}),
    ],
)
def test_without_a_trigger_the_caption_is_drawn_in_its_own_order(
    caption: str, prompt: str, flat: dict[str, Any], photos: Path, mini_checkpoint: Path, tmp_path: Path, asked: list[Any]
) -> None:
    for file in photos.rglob("*.txt"):
        file.write_text(caption)
    drawn(photos, mini_checkpoint, tmp_path, trigger="", **flat)
    assert [request.prompt for request in asked] == [prompt] * 3
