"""Folders of every layout, captions, and messages if something is missing."""

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
    assert len(problems) == 1 and "must have the number of repeats after the bar" in problems[0]


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
        "contains no PNG",
        "does not exist",
    ):
        assert part in told


def test_nothing_given() -> None:
    assert scan([], captions=CaptionSource(), repeats=1).problems == (
        "Image folder (data): is empty; choose a folder or drop images.",
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


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_caption_ends_where_a_line_of_a_text_file_does(end: str, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_bytes(f"a cat{end}{end}asleep{end}".encode())
    assert [s.caption for s in look(tmp_path, trigger="").samples] == ["a cat"]
    assert [s.caption for s in look(tmp_path, trigger="", all_lines=True).samples] == ["a cat\nasleep"]


@pytest.mark.parametrize("sign", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_no_other_sign_cuts_a_caption(sign: str, tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text(f"a cat{sign}asleep\n", encoding="utf-8")
    with (tmp_path / "a.txt").open(encoding="utf-8") as file:  # as sd-scripts reads it
        assert file.readlines()[0].strip() == f"a cat{sign}asleep"
    for all_lines in (False, True):
        found = look(tmp_path, trigger="", all_lines=all_lines)
        assert [s.caption for s in found.samples] == [f"a cat{sign}asleep"] and found.notes == ()


def test_what_is_not_read_of_captions_is_told(tmp_path: Path) -> None:
    for name, text in (("a", "zxq, 1girl,\nred ball,\ngrass, sky"), ("b", "\n \nlate"), ("c", "whole\n\n"), ("d", "x\ny")):
        write_picture(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "c.caption").write_text("another")
    unread, blank, second = look(tmp_path).notes
    assert unread.startswith("Caption files 'a.txt', 'd.txt': only the first line is used") and "(enable_wildcard)" in unread
    assert blank.startswith("Caption file 'b.txt': blank lines before the caption are skipped")
    assert second.startswith("Caption file 'c.caption': not used")
    assert look(tmp_path, all_lines=True).notes == (second,)


def test_an_empty_caption_file_is_told_whatever_stands_in_its_place(tmp_path: Path) -> None:
    for name, content in (("a", b""), ("b", b" \r\n"), ("c", b"\xef\xbb\xbf"), ("d", b"a dog")):
        write_picture(tmp_path / "2_red ball" / f"{name}.png")
        (tmp_path / "2_red ball" / f"{name}.txt").write_bytes(content)
    told = "Caption files 'a.txt', 'b.txt', 'c.txt': empty, so {} is used as the caption."
    assert look(tmp_path, trigger="").notes == (told.format("'red ball'"),)
    assert look(tmp_path, trigger="zxq").notes == (told.format("'zxq, red ball'"),)
    assert look(tmp_path, trigger="", filenames=True).notes == (told.format("the image's name"),)
    (tmp_path / "2_red ball").rename(tmp_path / "set")
    problems = look(tmp_path / "set", trigger="").problems
    empty = "Caption files 'a.txt', 'b.txt', 'c.txt' are empty; write the captions into them, or give a Trigger word (trigger)."
    assert problems == (empty,)
    for name in "ab":  # of two the one that says something
        (tmp_path / "set" / f"{name}.caption").write_text("a cat")
    (one,) = look(tmp_path / "set", trigger="").problems
    assert one == "Caption file 'c.txt' is empty; write the caption into it, or give a Trigger word (trigger)."


def test_images_without_captions_are_one_sentence(tmp_path: Path) -> None:
    for number in range(8):
        write_picture(tmp_path / f"{number}.png", seed=number)
    found = look(tmp_path, trigger="")
    assert found.problems == (
        "8 images have no captions ('0.png', '1.png', '2.png', '3.png', '4.png' and 3 more); add .txt files next to them, or give "
        "a Trigger word (trigger).",
    )
    assert len(found.samples) == 8, "so that the report stays"


def test_a_caption_in_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png")
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "shift_jis"):
        (tmp_path / "a.txt").write_bytes("a 猫".encode(encoding))
        assert look(tmp_path).problems == ("Caption file 'a.txt' is not UTF-8 text; save it as UTF-8.",), encoding
    (tmp_path / "a.txt").write_bytes("a cat".encode("utf-16-le"))  # legal UTF-8, of letters and zeros
    assert look(tmp_path).problems == ("Caption file 'a.txt' is not UTF-8 text; save it as UTF-8.",)
