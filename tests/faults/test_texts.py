"""Cases 22 to 24: captions and trigger words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lib_lora.data.captions import CaptionSource
from lib_lora.data.dataset import scan
from lib_lora.events import Finished, Planned
from lib_lora.files.lora_file import read
from tests.conftest import write_picture
from tests.house import House


@pytest.mark.case(22)
@pytest.mark.parametrize(
    "content",
    ["héllo".encode("utf-16"), "猫の写真です".encode("gbk", "replace"), bytes(range(128, 256))],
    ids=["UTF-16", "GBK", "binary"],
)
def test_captions_that_are_no_utf8(content: bytes, house: House, quick: Any, photos: Path) -> None:
    """UTF-16, GBK and binary captions are named, with what to do; nothing is trained on letters that are none."""
    (photos / "3_blob" / "0.txt").write_bytes(content)
    told = house.run(quick()).told
    assert told == ["Caption file '0.txt' is not UTF-8 text; save it as UTF-8."]


@pytest.mark.case(22)
def test_captions_that_are_text(tmp_path: Path) -> None:
    """A missing and an empty file leave the folder's name; CRLF and a byte order mark are no part of a caption."""
    folder = tmp_path / "2_cat"
    for name, content in {"a": None, "b": b"", "c": b"one\r\ntwo\r\n", "d": b"\xef\xbb\xbfmarked"}.items():
        write_picture(folder / f"{name}.png")
        if content is not None:
            (folder / f"{name}.txt").write_bytes(content)
    found = scan([str(folder)], captions=CaptionSource(), repeats=1)
    assert found.problems == () and [sample.caption for sample in found.samples] == ["cat", "cat", "one", "marked"]


@pytest.mark.case(22)
def test_enormous_captions(house: House, quick: Any, photos: Path) -> None:
    """A caption of 2 MB is refused; of one of 1 MB as much is trained on as is read, and a note says how much that is."""
    caption = photos / "3_blob" / "0.txt"
    caption.write_text("word " * 400_000)
    assert house.run(quick()).told == ["Caption file '0.txt' is larger than 1 MB; shorten or remove it."]
    caption.write_text("word " * 200_000)
    run = house.run(quick(steps=1))
    assert run.of(Finished)[0].path
    assert any("1 caption is longer than 75 tokens" in note for note in run.told), run.told


@pytest.mark.case(23)
def test_prompt_syntax_is_text(house: House, quick: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """<lora:x:1>, (a:1.3), [from:to:0.5], AND, __wildcard__ and {a|b} are trained on letter by letter."""
    text = "<lora:x:1>, (a:1.3), [from:to:0.5] AND b, __w__ {a|b}"
    seen: list[str] = []
    import lib_lora.training.texts as room

    real = room.batch_tokens
    monkeypatch.setattr(room, "batch_tokens", lambda tok, captions, *rest: seen.extend(captions) or real(tok, captions, *rest))
    for path in (photos / "3_blob").glob("*.png"):
        path.with_suffix(".txt").write_text(text)
    run = house.run(quick(steps=1, trigger=""))
    assert {sample.caption for sample in run.of(Planned)[0].plan.samples} == {text} and set(seen) >= {text}
    assert run.of(Finished)[0].path


@pytest.mark.case(24)
@pytest.mark.parametrize("trigger", ["🐱", "constructor", "'; DROP TABLE loras; --", "__proto__", 'a"b\\c'])
def test_odd_triggers_reach_card_and_metadata(trigger: str, house: House, quick: Any) -> None:
    """An emoji, a name of JavaScript's, SQL, quotes: the same in card and metadata."""
    path = house.run(quick(steps=1, trigger=trigger)).of(Finished)[0].path
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["activation text"] == trigger
    assert read(path)[1]["modelspec.trigger_phrase"] == trigger


@pytest.mark.case(24)
def test_a_trigger_that_fills_every_caption(house: House, quick: Any, photos: Path) -> None:
    """A trigger of 300 words is told to be longer than what is read; an empty one leaves captions as they are."""
    run = house.run(quick(steps=1, trigger="w " * 300))
    assert any("longer than 75 tokens" in note for note in run.told)
    for path in (photos / "3_blob").glob("*.png"):
        path.with_suffix(".txt").write_text("alone")
    plan = house.run(quick(steps=1, trigger="", name="other")).of(Planned)[0].plan
    assert {sample.caption for sample in plan.samples} == {"alone"}
