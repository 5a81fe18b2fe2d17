"""The size of a LoRA file's metadata: always small enough to be read, and reported before the first step."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.config.groups import build_config
from lib_lora.data.dataset import Dataset, Folder, Sample
from lib_lora.data.sizes import Size
from lib_lora.errors import LoraFileError
from lib_lora.files.lora_file import read, serialise, write
from lib_lora.files.safetensors_header import LENGTH_BYTES, MAX_HEADER_BYTES, MAX_TENSORS
from lib_lora.model.base import ModelInfo
from lib_lora.output.metadata import RunFacts, cut_metadata, file_metadata
from lib_lora.output.metadata_size import MAX_METADATA_BYTES, bytes_of, fitted
from lib_lora.plan import Plan, make_plan
from lib_lora.settle import settle
from lib_lora.training.precision import Precision

STATE = {"lora_unet_a.lora_down.weight": torch.ones(2, 6), "lora_unet_a.alpha": torch.tensor(1.0)}
MODEL = ModelInfo("m" * 200, "abcd1234", "0" * 64)


def planned(captions: list[str], folders: int = 1, name: str = "cat", **flat: object) -> tuple[Any, Plan]:
    """A run of pictures that are shown once, spread over folders."""
    config = settle(build_config({"name": "x", "trigger": "", "text_encoder_lr": 5e-5, **flat}), None)
    found = tuple(Folder(Path(f"1_{name}{number}"), 1, "cat", Path()) for number in range(folders))
    samples = tuple(
        Sample(found[i % folders].path / f"{i}.png", caption, 1, Size(512, 512), True) for i, caption in enumerate(captions)
    )
    return config, make_plan(config, Dataset(samples, found, (), ()))


def metadata(config: Any, plan: Plan) -> dict[str, str]:
    return file_metadata(config, plan, MODEL, RunFacts(1e9, 5, 1, Precision("no", torch.float32), "AdamW"), {"webui": "v1.10.1"})


def written(config: Any, plan: Plan, folder: Path) -> dict[str, str]:
    """What our reader finds in the file, which must be read again, and as the webui does."""
    path = folder / "x.safetensors"
    write(path, serialise(STATE, torch.float16, metadata(config, plan)))
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        header = json.loads(file.read(length))
    assert length < MAX_HEADER_BYTES / 2
    for text in header["__metadata__"].values():
        assert not text.startswith("{") or isinstance(json.loads(text), dict)
    return read(path)[1]


WORDS: dict[str, Callable[[random.Random], str]] = {
    "letters": lambda rng: "".join(rng.choices("abcdefgh", k=20)),
    "of three bytes": lambda rng: "".join(rng.choices("猫犬鳥魚", k=20)),
    "pictures": lambda rng: "".join(rng.choices("🐱🐶🐦🐟", k=20)),
    "quotes and backslashes": lambda rng: "".join(rng.choices('"\\ab', k=20)),
}


@pytest.mark.parametrize("kind", WORDS)
def test_megabytes_of_captions(kind: str, tmp_path: Path) -> None:
    """Nine of letters; fewer, of letters that take more."""
    rng, word = random.Random(1), WORDS[kind]
    count = 900 if kind == "letters" else 60
    captions = [", ".join(["often", *(["now and then"] * (i % 3 == 0)), *(word(rng) for _ in range(count))]) for i in range(500)]
    config, plan = planned(captions, folders=3)
    assert sum(len(caption) for caption in captions) > 1e4 * count
    tags = json.loads(written(config, plan, tmp_path)["ss_tag_frequency"])
    assert list(tags) == ["1_cat0", "1_cat1", "1_cat2"] and sum(found["often"] for found in tags.values()) == 500
    assert sum(found.get("now and then", 0) for found in tags.values()) == 167
    kept = len({tag for found in tags.values() for tag in found})
    (told,) = cut_metadata(config, plan)
    assert f"lists the {kept:,} most frequent (ss_tag_frequency)" in told and kept > 2000


def test_no_tag_that_is_left_out_is_more_frequent_than_one_that_is_kept() -> None:
    rng = random.Random(2)
    pool = [f"tag {number} {'x' * 300}" for number in range(8_000)]
    captions = [", ".join(rng.sample(pool[: rng.choice((100, 1000, 8_000))], 80)) for _ in range(500)]
    config, plan = planned(captions)
    counted: dict[str, int] = {}
    for caption in captions:
        for tag in set(caption.split(", ")):
            counted[tag] = counted.get(tag, 0) + 1
    tags = json.loads(metadata(config, plan)["ss_tag_frequency"])["1_cat0"]
    left_out = [count for tag, count in counted.items() if tag not in tags]
    assert left_out and tags == {tag: counted[tag] for tag in tags} and min(tags.values()) >= max(left_out)


def test_one_caption_without_a_comma_takes_no_room_from_the_tags(tmp_path: Path) -> None:
    config, plan = planned(["x" * 2**20, "a cat, red", "a cat, " + "y" * 2**20])
    assert json.loads(written(config, plan, tmp_path)["ss_tag_frequency"]) == {"1_cat0": {"a cat": 2, "red": 1}}
    assert "4 different tags" in cut_metadata(config, plan)[0] and "lists the 2 most" in cut_metadata(config, plan)[0]


LONG = {
    "training_comment": "c", "metadata_title": "t", "metadata_author": "a", "metadata_description": "d", "metadata_license": "l",
    "metadata_tags": "g", "metadata_usage_hint": "u", "trigger": "w",
}  # fmt: skip


def test_everything_at_once_stays_within_the_limit(tmp_path: Path) -> None:
    flat = {key: f'{letter}"\x01' * 21_000 for key, letter in LONG.items()}
    captions = [f"猫{number}, {'z' * 900}{number}" for number in range(1500)]
    config, plan = planned(captions, folders=1500, name='"猫' * 40, embedding_vectors=2, **flat)
    texts = metadata(config, plan)
    assert MAX_METADATA_BYTES / 2 < sum(bytes_of(key) + bytes_of(text) + 2 for key, text in texts.items()) <= MAX_METADATA_BYTES
    written(config, plan, tmp_path)
    told = cut_metadata(config, plan)
    for key in (
        "ss_training_comment",
        "modelspec.description",
        "modelspec.trigger_phrase",
        "ss_dataset_dirs",
        "ss_tag_frequency",
    ):
        assert len([text for text in told if key in text]) == 1, key
    assert all(text.endswith(".") and "\n" not in text for text in told)


def test_tensors_and_metadata_together_can_be_read() -> None:
    key = "lora_te2_text_model_encoder_layers_31_self_attn_out_proj.hada_w1_a"
    entry = {"dtype": "BF16", "shape": [1280, 1280, 3, 3], "data_offsets": [10**10, 10**10]}
    assert MAX_TENSORS * (len(json.dumps({key: entry}, separators=(",", ":")))) + MAX_METADATA_BYTES < MAX_HEADER_BYTES
    with pytest.raises(LoraFileError, match="could not be read back"):
        serialise(STATE, torch.float16, {"ss_a": "x" * MAX_HEADER_BYTES})


def test_what_fits_is_left_as_it_is() -> None:
    config, plan = planned(["a cat, red", "a cat"], training_comment="mine")
    found = metadata(config, plan)
    assert json.loads(found["ss_tag_frequency"]) == {"1_cat0": {"a cat": 2, "red": 1}} and found["ss_training_comment"] == "mine"
    assert cut_metadata(config, plan) == () and fitted({"a": None, "b": {"c": 1}, "d": float("nan")}).texts == {
        "a": "None", "b": '{"c": 1}', "d": "nan"
    }  # fmt: skip


def test_halves_of_characters_are_told_and_saved(tmp_path: Path) -> None:
    config, plan = planned(["a \udce9t\xe9, cat"], name="\udcff")
    found = written(config, plan, tmp_path)
    assert json.loads(found["ss_tag_frequency"]) == {"1_�0": {"a �t\xe9": 1, "cat": 1}}
    assert {text.split()[6] for text in cut_metadata(config, plan)} == {"ss_tag_frequency", "ss_dataset_dirs"}
