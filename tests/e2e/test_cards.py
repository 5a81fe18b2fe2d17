"""Names, captions, tags and triggers of all kinds through the webui's own reader, card page and editor."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import pytest
import torch

from lib_lora.config.groups import build_config
from lib_lora.config.names import name_problem
from lib_lora.data.dataset import Dataset, Folder, Sample
from lib_lora.data.sizes import Size
from lib_lora.files import atomic
from lib_lora.files.lora_file import serialise
from lib_lora.model.base import ModelInfo
from lib_lora.output.card import write_card
from lib_lora.output.metadata import RunFacts, file_metadata
from lib_lora.plan import make_plan
from lib_lora.settle import settle
from lib_lora.training.precision import Precision
from tests.e2e.server import Server

pytestmark = pytest.mark.e2e

CASES = 1000
MARK = "<b class='mark'>"
PIECES = (
    MARK, '{"a": 1}', "{", "[1]", "null", "None", "</script>", "javascript:", "&amp;", "'", '"', "\\", "(cat:1.2)", "<lora:x:1>", "%s",
    "{0}", "{name}", "\t", " ", ", ", ",,", "猫", "🐱", "é", "e\u0301", "\u202e", "١٢", "²", "①", "0", "-1", "1e999", "nan", "constructor",
    "__proto__", "a" * 80, "\u2028", "\x7f", "cat", "ohwx", "BREAK", "[a:b:0.5]", "`", "${x}", "#", "|",
)  # fmt: skip


@pytest.mark.case(54)
def test_a_thousand_loras_are_listed_shown_and_edited(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them makes the webui stumble, and no text of a person's becomes HTML."""
    monkeypatch.setattr(atomic.os, "fsync", lambda _: None)
    rng, names = random.Random(4), set[str]()
    folder = server.lora_folder / "thousand"
    folder.mkdir()
    try:
        while len(names) < CASES:
            name = _name(rng)
            if name_problem(name) is None and name not in names:
                names.add(name)
                _write(folder / f"{name}.safetensors", rng, name)
        found = server.get("/e2e/cards", params={"mark": MARK})
        assert found["problems"] == []
        assert names <= set(found["listed"]) and not found["as_html"] and found["length"] > 1_000_000
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        server.get("/e2e/cards", params={"mark": MARK})


def _name(rng: random.Random) -> str:
    """Letters, digits and marks of any script, and what is allowed between them; most are legal."""
    allowed = " _-.+()0123456789abcXYZ"
    letters = [chr(rng.randrange(0x20, 0x3100)) for _ in range(rng.randrange(0, 6))] + [chr(rng.randrange(0xAC00, 0xD7A3))]
    letters = [c for c in letters if c.isalnum() or unicodedata.category(c).startswith("M")]
    pieces = [rng.choice([rng.choice(allowed), rng.choice(letters or ["x"])]) for _ in range(rng.randrange(1, 30))]
    return "".join(pieces)


def _text(rng: random.Random, longest: int) -> str:
    return "".join(rng.choice(PIECES) for _ in range(rng.randrange(longest)))


def _write(path: Path, rng: random.Random, name: str) -> None:
    """A file and a card as a run of such settings and captions leaves them."""
    given = {option: _text(rng, 5) for option in ("trigger", "training_comment", "metadata_title", "metadata_author",
                                                  "metadata_description", "metadata_tags", "optimizer_args")}  # fmt: skip
    config = build_config(
        {"name": name, "resolution": 64, "min_bucket_reso": 64, "text_encoder_lr": 0, **given, "optimizer_args": ""}
    )
    concept = Folder(Path(_text(rng, 4).replace("/", "") or "1_x"), rng.randrange(1, 9), None, Path())
    samples = tuple(Sample(concept.path / f"{i}.png", _text(rng, 9), concept.repeats, Size(64, 64), False) for i in range(3))
    plan = make_plan(config, Dataset(samples, (concept,), (), ()))
    model = ModelInfo(_text(rng, 3) + ".safetensors", "abcd1234", None)
    facts = RunFacts(rng.uniform(0, 4e9), 5, 1, Precision("no", torch.float32), "AdamW")
    metadata = file_metadata(settle(config, None), plan, model, facts, {"webui": "x"})
    path.write_bytes(serialise({"lora_unet_a.alpha": torch.tensor(1.0)}, torch.float16, metadata))
    write_card(path, activation_text=config.text.trigger, sd_version="SD1", preferred_weight=1.0)
