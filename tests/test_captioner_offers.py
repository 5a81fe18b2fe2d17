"""What can be set for captioners, and the two that need no host."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

import pytest

from lib_lora.datasets.captioner_fields import TAGS, THRESHOLD, Field, captioning_options, read_values, with_default
from lib_lora.datasets.captioner_offers import plain_offers
from lib_lora.datasets.captioners.openai_compatible import Endpoint, OpenAICompatible
from lib_lora.datasets.captioning_options import CaptioningOptions
from lib_lora.datasets.image_set import ImageSet
from lib_lora.errors import DatasetError
from tests.house import assert_one_sentence, sentences


def test_every_option_of_captions_has_a_field_with_its_default() -> None:
    assert {field.name for field in TAGS} == {field.name for field in fields(CaptioningOptions)}
    assert captioning_options(read_values(TAGS, {})) == CaptioningOptions()


def test_unwanted_tags_are_taken_apart() -> None:
    assert captioning_options({"unwanted": " a , b b,, ", "address": "x"}) == CaptioningOptions(unwanted=("a", "b b"))


def test_another_default_is_used_and_bounds_stay() -> None:
    field = with_default(THRESHOLD, 0.5)
    assert read_values([field], {}) == {"threshold": 0.5}
    with pytest.raises(DatasetError) as caught:
        read_values([field], {"threshold": 1.1})
    assert sentences(caught.value) == ["Threshold: got 1.1, must be a number from 0 to 1."]


def test_a_text_is_bounded() -> None:
    with pytest.raises(DatasetError) as caught:
        read_values([Field("word", "Word", "")], {"word": "x" * 20_001})
    assert len(sentences(caught.value)[0]) < 150


def test_wd14_looks_in_its_folder_unless_the_page_may_name_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    chosen, fixed = (plain_offers(tmp_path / "WD14", may_choose=may)[0] for may in (True, False))
    for offer in (chosen, fixed):
        assert str(tmp_path / "WD14" / "model.onnx") in offer.needs()
        assert_one_sentence(offer.needs())
    assert (
        str(tmp_path / "other" / "model.onnx")
        in chosen.make(read_values(chosen.fields, {"model": str(tmp_path / "other")})).needs()
    )
    with pytest.raises(DatasetError):
        read_values(fixed.fields, {"model": str(tmp_path / "other")})


def test_a_server_gets_every_value_and_begins_with_ours(tmp_path: Path) -> None:
    _, offer = plain_offers(tmp_path, may_choose=True)
    assert offer.needs() == "" and "sent" in offer.note
    named = {field.name for field in offer.fields} & set(inspect.signature(Endpoint).parameters)
    assert named == set(inspect.signature(Endpoint).parameters)
    values = {"address": "http://127.0.0.1:9/v1", "model": "m", "prompt": "p", "key": "k", "seconds": 5, "most_tokens": 7}
    made = offer.make(read_values(offer.fields, values))
    assert isinstance(made, OpenAICompatible) and made._endpoint == Endpoint(**values)  # type: ignore[arg-type]
    with pytest.raises(DatasetError):
        offer.make(read_values(offer.fields, {"address": "file:///etc/passwd"}))


def test_a_dataset_that_was_deleted_is_not_written_again(tmp_path: Path) -> None:
    gone = ImageSet("set-0123456789abcdef", tmp_path / "gone" / "images", tmp_path / "gone" / "looked")
    with pytest.raises(DatasetError) as caught:
        gone.rename("cats")
    assert len(sentences(caught.value)) == 1 and not (tmp_path / "gone").exists()
