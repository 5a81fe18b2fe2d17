"""Folders of every kind, captions, and what is said when something is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lib_lora.data.captions import CaptionSource, written_caption
from lib_lora.data.dataset import Dataset, scan
from tests.conftest import write_picture


def look(*paths: Path, trigger: str = "ohwx", repeats: int = 7, **captions: Any) -> Dataset:
    return scan([str(path) for path in paths], captions=CaptionSource(trigger, **captions), repeats=repeats)


def shown(dataset: Dataset) -> list[tuple[str, int, str]]:
    return [(sample.path.name, sample.repeats, sample.caption) for sample in dataset.samples]


def test_parent_of_numbered_folders(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_red cat" / "a.png")
    write_picture(tmp_path / "5_dog" / "b.jpg")
    write_picture(tmp_path / "others" / "c.png")
    found = look(tmp_path, trigger="")
    assert shown(found) == [("a.png", 3, "red cat"), ("b.jpg", 5, "dog")]
    assert found.problems == () and "without a number" in found.notes[0]


def test_numbered_folder_itself(tmp_path: Path) -> None:
    write_picture(tmp_path / "4_cat" / "a.png")
    assert shown(look(tmp_path / "4_cat", trigger="")) == [("a.png", 4, "cat")]


def test_plain_folder(tmp_path: Path) -> None:
    write_picture(tmp_path / "photos" / "a.png")
    assert shown(look(tmp_path / "photos")) == [("a.png", 7, "ohwx")]


def test_parent_of_plain_folders(tmp_path: Path) -> None:
    write_picture(tmp_path / "one" / "a.png")
    write_picture(tmp_path / "two" / "b.png")
    assert shown(look(tmp_path)) == [("a.png", 7, "ohwx"), ("b.png", 7, "ohwx")]


def test_same_folder_twice_counts_once(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    assert len(look(tmp_path, tmp_path).samples) == 1


def test_a_number_behind_a_bar_wins(tmp_path: Path) -> None:
    write_picture(tmp_path / "3_cat" / "a.png")
    write_picture(tmp_path / "plain" / "b.png")
    write_picture(tmp_path / "0_none" / "c.png")
    found = look(Path(f"{tmp_path / '3_cat'}|5"), Path(f"{tmp_path / 'plain'} | 2"), Path(f"{tmp_path / '0_none'}|1"))
    assert shown(found) == [("a.png", 5, "ohwx, cat"), ("b.png", 2, "ohwx"), ("c.png", 1, "ohwx, none")] and not found.problems
    assert {sample.repeats for sample in look(Path(f"{tmp_path}|4")).samples} == {4}


@pytest.mark.parametrize("number", ["0", "x", "", "-1", "1.5", "10001"])
def test_what_stands_behind_a_bar_must_be_a_number(tmp_path: Path, number: str) -> None:
    write_picture(tmp_path / "3_cat" / "a.png")
    problems = look(Path(f"{tmp_path / '3_cat'}|{number}")).problems
    assert len(problems) == 1 and "behind the bar must stand how often" in problems[0]


@pytest.mark.skipif(os.name == "nt", reason="no bars in names there")
def test_a_bar_may_be_part_of_a_name(tmp_path: Path) -> None:
    write_picture(tmp_path / "a|7" / "a.png")
    assert [sample.repeats for sample in look(tmp_path / "a|7", repeats=2).samples] == [2]
    assert [sample.repeats for sample in look(Path(f"{tmp_path / 'a|7'}|3"), repeats=2).samples] == [3]


def test_captions(tmp_path: Path) -> None:
    for name in "abcd":
        write_picture(tmp_path / "2_cat" / f"{name}.png")
    folder = tmp_path / "2_cat"
    (folder / "a.txt").write_text("a cat, (sleeping:1.2)\nsecond line")
    (folder / "b.caption").write_text("\ufeffein Kätzchen", encoding="utf-8")
    (folder / "c.txt").write_text("  \n")
    assert [caption for _, _, caption in shown(look(tmp_path, trigger=""))] == [
        "a cat, (sleeping:1.2)",
        "ein Kätzchen",
        "cat",
        "cat",
    ]


@pytest.mark.parametrize(
    ("caption", "concept", "trigger", "wanted"),
    [
        ("a cat", "x", "", "a cat"),
        ("a cat", "x", "ohwx", "ohwx, a cat"),
        ("photo of OHWX", None, "ohwx", "photo of OHWX"),
        ("a woman", None, "man", "man, a woman"),
        (None, "cat", "ohwx", "ohwx, cat"),
        (None, None, "ohwx", "ohwx"),
        (None, None, "", None),
    ],
)
def test_trigger(caption: str | None, concept: str | None, trigger: str, wanted: str | None) -> None:
    assert written_caption(Path("0.png"), caption, concept, CaptionSource(trigger)) == wanted


def test_every_line_gets_the_trigger(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("sitting\n\n  ohwx asleep \n")
    assert [s.caption for s in look(tmp_path, trigger="ohwx", all_lines=True).samples] == ["ohwx, sitting\nohwx asleep"]
    assert [s.caption for s in look(tmp_path, trigger="ohwx").samples] == ["ohwx, sitting"]


def test_other_caption_files_and_file_names(tmp_path: Path) -> None:
    for name in ("red_car", "b"):
        write_picture(tmp_path / "2_thing" / f"{name}.png")
    (tmp_path / "2_thing" / "b.tags").write_text("blue car")
    (tmp_path / "2_thing" / "red_car.caption").write_text("not asked for")
    assert [s.caption for s in look(tmp_path, trigger="", extension=".tags").samples] == ["blue car", "thing"]
    named = look(tmp_path, trigger="", extension=".tags", filenames=True)
    assert [s.caption for s in named.samples] == ["blue car", "red car"]


def test_problems_are_told_together(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    write_picture(folder / "good.png")
    (folder / "text.jpg").write_text("not a picture")
    half = write_picture(folder / "half.png", 200, 200)
    half.write_bytes(half.read_bytes()[:3000])
    (tmp_path / "empty").mkdir()
    found = look(folder, tmp_path / "empty", tmp_path / "missing", trigger="")
    told = "\n".join(found.problems)
    assert len(found.problems) == 5
    for part in (
        "'text.jpg' is not a readable",
        "'half.png' cannot be read",
        "'good.png' has no caption",
        "holds no PNG",
        "does not exist",
    ):
        assert part in told


def test_nothing_given() -> None:
    assert scan([], captions=CaptionSource(), repeats=1).problems == (
        "Image folder (data): none given; choose a folder or drop images.",
    )


def test_caption_that_is_no_text(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9 noir")
    assert look(tmp_path).problems == ("Caption file 'a.txt' is not UTF-8 text; save it as UTF-8.",)


def test_zero_repeats(tmp_path: Path) -> None:
    write_picture(tmp_path / "0_cat" / "a.png")
    assert "0 repeats" in look(tmp_path).problems[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_and_hidden_files_are_passed_over(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    write_picture(tmp_path / ".b.png")
    os.mkfifo(tmp_path / "c.png")
    assert [name for name, _, _ in shown(look(tmp_path))] == ["a.png"]


@pytest.mark.skipif(os.name == "nt", reason="names are always text there")
@pytest.mark.parametrize("inside", [b"caf\xe9.png", b"1_caf\xe9/a.png"])
def test_names_that_are_no_text_are_told(inside: bytes, tmp_path: Path) -> None:
    picture = write_picture(tmp_path / "a.png")
    target = os.path.join(os.fsencode(tmp_path), b"all", inside)  # noqa: PTH118 - bytes
    os.makedirs(os.path.dirname(target))  # noqa: PTH103, PTH120
    os.rename(picture, target)  # noqa: PTH104
    found = scan([str(tmp_path / "all")], captions=CaptionSource(trigger="x", filenames=True), repeats=1)
    assert len(found.problems) == 1 and "the name is not UTF-8; rename it." in found.problems[0]
    found.problems[0].encode()
