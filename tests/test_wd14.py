"""WD14: the image as SmilingWolf's taggers get it, on a real onnxruntime, and files that are none of theirs."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_lora.datasets.captioners import wd14
from lib_lora.datasets.captioners.captioner import CaptionerError
from lib_lora.datasets.captioners.wd14 import Wd14, read_tags, squared
from lib_lora.errors import DatasetError
from tests.house import assert_one_sentence, sentences
from tests.onnx_model import tagger

needs_onnxruntime = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed; requirements/dev.txt has it."
)
ROWS = ["1,general,9,5", "2,blue_hair,0,5", "3,green,0,4", '4,"a,b_(c)",0,4', "5,hatsune_miku,4,3"]
SMALL = [[0.01, 0.01, 0, 0, 0.002], [0, 0, 0.01, 0, 0], [0, 0, 0, 0.01, 0]]  # of blue, green, red


def write(folder: Path, model: bytes, rows: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(model)
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *rows]) + "\n", encoding="utf-8")
    return folder


def share(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_an_image_is_put_on_a_white_square_in_bgr() -> None:
    image = Image.new("RGB", (8, 4), (10, 20, 30))
    pixels = squared(image, 8)
    assert pixels.shape == (1, 8, 8, 3) and pixels.dtype == np.float32
    assert (pixels[0, 2:6] == [30, 20, 10]).all() and (pixels[0, :2] == 255).all() and (pixels[0, 6:] == 255).all()
    assert squared(image, 32).shape == (1, 32, 32, 3)


@needs_onnxruntime
def test_tags_and_probabilities_are_the_models(tmp_path: Path) -> None:
    folder = write(tmp_path, tagger(SMALL), ROWS)
    captioner = Wd14(str(folder), characters=0.5)
    assert captioner.needs() == ""
    with captioner:
        found = captioner.caption(Image.new("RGB", (40, 40), (100, 200, 50)))
    expected = [("blue_hair", share(0.5)), ("green", share(2.0)), ("a,b_(c)", share(1.0)), ("hatsune_miku", share(0.1))]
    assert [tag for tag, _ in found] == [tag for tag, _ in expected]
    assert np.allclose([number for _, number in found], [number for _, number in expected], atol=1e-5)
    with Wd14(str(folder / "model.onnx"), str(folder / "selected_tags.csv"), characters=0.6) as sure:
        assert "hatsune_miku" not in dict(sure.caption(Image.new("RGB", (40, 40), (100, 200, 50))))


@needs_onnxruntime
def test_a_model_of_any_size_gets_the_usual_one(tmp_path: Path) -> None:
    with Wd14(str(write(tmp_path, tagger(SMALL, ("batch", "h", "w", 3)), ROWS))) as captioner:
        assert len(captioner.caption(Image.new("RGB", (20, 30)))) == 3


@needs_onnxruntime
@pytest.mark.parametrize(
    "model",
    [b"no model", b"", tagger(SMALL, ("batch", 3, 32, 32)), tagger(SMALL, ("batch", 32, 16, 3)), tagger(SMALL, (1, 4, 4, 3)),
     tagger(SMALL, (1, 2**20, 2**20, 3))],
    ids=["garbage", "empty", "channels first", "oblong", "tiny", "huge"],
)  # fmt: skip
def test_models_that_are_no_taggers_are_told(tmp_path: Path, model: bytes) -> None:
    with pytest.raises(DatasetError) as caught, Wd14(str(write(tmp_path, model, ROWS))):
        pass
    assert len(sentences(caught.value)) == 1


@needs_onnxruntime
@pytest.mark.parametrize(
    "files", [(tagger(SMALL), ROWS[:-1]), (tagger(SMALL, scale=2.0), ROWS), (tagger(SMALL, scale=math.nan), ROWS)]
)
def test_numbers_that_are_no_probabilities_of_the_tags_are_told(tmp_path: Path, files: tuple[bytes, list[str]]) -> None:
    with Wd14(str(write(tmp_path, *files))) as captioner, pytest.raises(CaptionerError) as caught:
        captioner.caption(Image.new("RGB", (40, 40), "white"))
    assert_one_sentence(f"Image 'a' has no new caption: {caught.value.problems[0]}")


def test_what_is_missing_is_told_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "onnxruntime" else found(name))
    assert "onnxruntime" in Wd14(str(tmp_path)).needs()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: object())
    missing = Wd14(f'"{tmp_path}"').needs()
    assert str(tmp_path / "model.onnx") in missing and "SmilingWolf" in missing
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert str(tmp_path / "selected_tags.csv") in Wd14(str(tmp_path)).needs()
    (tmp_path / "selected_tags.csv").write_bytes(b"x")
    assert Wd14(str(tmp_path)).needs() == ""
    monkeypatch.setattr(wd14, "MAX_LIST", 0)
    for text in (
        missing,
        Wd14(str(tmp_path)).needs(),
        Wd14(r"\\host\share").needs(),
        Wd14("a\0b").needs(),
        Wd14("x" * 9000).needs(),
    ):
        assert_one_sentence(text)


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe1", b"a,b\n1,2\n", b"name,category\n,0\n", b"name,category\n" + b"x" * 300 + b",0\n", b"name,category\n\0,0\n\"",
     b'name,category\n"' + b"x" * 200_000],
)  # fmt: skip
def test_lists_that_are_none_are_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "selected_tags.csv"
    path.write_bytes(content)
    try:
        found = read_tags(path)
    except DatasetError as error:
        assert len(sentences(error)) == 1
    else:
        assert len(found) < 2  # fits no model
