"""Changes of captions: what is asked for changes, and everything else stays byte for byte."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_lora.data.caption_processing import tags_of
from lib_lora.data.edits import NO_EDIT, edits_in
from lib_lora.data.folders import Folder
from lib_lora.datasets.caption_changes import (
    CaptionChanges,
    apply,
    moved_tag,
    replaced,
    with_tag,
    without_duplicates,
    without_tag,
)
from lib_lora.datasets.caption_list import has_caption, in_order, matching, tag_counts
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.datasets.image_set import LONGEST_CAPTION, ImageEntry, ImageSet, StaleError, image_id
from lib_lora.errors import DatasetError
from tests.conftest import write_picture
from tests.house import sentences

UNTOUCHED = "猫, 🐈‍⬛ кот,(red hair:1.2),  naruto \\(series\\) , שלום,é, "  # CJK, joined emoji, weight, escape, RTL


def entries(*captions: str | None) -> list[ImageEntry]:
    """Images with these captions, on no disk."""
    root = Path("none")
    folder = Folder(root, 1, None, root)
    names = [f"{number}.png" for number in range(len(captions))]
    return [ImageEntry(image_id(name), name, root / name, folder, NO_EDIT, caption) for name, caption in zip(names, captions)]


def after(changes: CaptionChanges) -> list[str]:
    return [change.after for change in changes.preview]


@pytest.fixture
def dataset(tmp_path: Path) -> ImageSet:
    """A dataset of three images, of which two have captions."""
    found = Catalogue(tmp_path / "sets").create("cats")
    for number, caption in enumerate(["a cat, red", "a dog, red", None]):
        found.add(f"{number}.png", write_picture(tmp_path / "in" / f"{number}.png", seed=number))
        if caption is not None:
            path = tmp_path / "in" / "caption"
            path.write_text(caption, encoding="utf-8")
            found.add(f"{number}.txt", path)
    return found


def test_find_and_replace_is_literal() -> None:
    assert after(replaced(entries("a.c (abc:1.2) a.c", "abc"), "a.c", r"\1\n")) == [r"\1\n (abc:1.2) \1\n"]
    assert after(replaced(entries("x (y)"), "(y)", "[z]")) == ["x [z]"]


def test_case_matters_only_if_asked() -> None:
    assert after(replaced(entries("Red red", "RED"), "red", "blue")) == ["blue blue", "blue"]
    assert after(replaced(entries("Red red", "RED"), "red", "blue", case=True)) == ["Red blue"]
    assert after(replaced(entries("Red, red"), "red", "blue", case=True, whole_tag=True)) == ["Red, blue"]


def test_a_whole_tag_is_replaced_and_no_part_of_one() -> None:
    assert after(replaced(entries("red,  red hair , red"), "red", "blue", whole_tag=True)) == ["blue,  red hair , blue"]
    assert after(replaced(entries("red, red hair, x"), "red", "", whole_tag=True)) == ["red hair, x"]


def test_a_preview_tells_before_and_after() -> None:
    (change,) = replaced(entries("same", "old", None), "old", "new").preview
    assert (change.place, change.name, change.before, change.after) == ("1.png", "1.png", "old", "new")
    assert with_tag(entries(None), "cat").preview[0].before is None
    assert replaced(entries("old"), "old", "new").captions == {"0.png": "new"}


@pytest.mark.parametrize(
    ("at", "expected"),
    [("front", "cat, a, b"), ("end", "a, b, cat"), (1, "a, cat, b"), (0, "cat, a, b"), (9, "a, b, cat")],
)
def test_a_tag_is_added_at_its_place(at: object, expected: str) -> None:
    assert after(with_tag(entries("a, b", "x, Cat", "", None), "cat", at)) == [expected, "cat", "cat"]  # type: ignore[arg-type]


def test_a_tag_is_added_with_the_gap_that_the_caption_has() -> None:
    assert after(with_tag(entries("a,b", "a,b,", "a, b, "), "cat")) == ["a,b,cat", "a,b,cat", "a, b, cat"]
    assert after(with_tag(entries("a,b"), "x, y", "front")) == ["x,y,a,b"]


def test_a_tag_is_removed_with_its_separator() -> None:
    assert after(without_tag(entries("a, B,c", "b", "b, c", "ab, bc"), "b")) == ["a,c", "", "c"]
    assert after(without_tag(entries("a, b, c, d"), "d, b")) == ["a, c"]


def test_a_tag_moves_to_either_end() -> None:
    assert after(moved_tag(entries("a, b, c", "b, a", "c"), "b", "front")) == ["b, a, c"]
    assert after(moved_tag(entries("a, b, c", "a, b", "c"), "b", "end")) == ["a, c, b"]
    assert after(moved_tag(entries("x, b, a"), "a, b", "front")) == ["a, b, x"]


def test_of_duplicates_the_first_stays() -> None:
    assert after(without_duplicates(entries("a, b, A,b , c", "a,, b,,c"))) == ["a, b, c"]


def test_each_line_is_a_caption() -> None:
    lines = "a, b\n\nc, b"
    assert after(without_tag(entries(lines), "b")) == ["a\n\nc"]
    assert after(with_tag(entries(lines), "x")) == ["a, b, x\n\nc, b, x"]
    assert after(moved_tag(entries(lines), "b", "front")) == ["b, a\n\nb, c"]
    assert without_duplicates(entries("a\na")).preview == ()


def test_another_separator() -> None:
    assert after(without_tag(entries("a; b, c; d"), "b, c", ";")) == ["a; d"]


@pytest.mark.parametrize(
    "changes",
    [
        lambda e: with_tag(e, "new"),
        lambda e: without_tag(e, "gone"),
        lambda e: replaced(e, "gone", "new"),
        lambda e: replaced(e, "gone", "new", whole_tag=True),
        lambda e: moved_tag(e, "gone", "front"),
        without_duplicates,
    ],
)
def test_the_rest_of_a_caption_stays_byte_for_byte(changes: object) -> None:
    (caption,) = after(changes(entries(UNTOUCHED + "gone,gone,x")))  # type: ignore[operator]
    assert UNTOUCHED.strip().rstrip(",").encode() in caption.encode()


@given(st.lists(st.sampled_from(["a", " b", "猫", "(c:1.2)", "\\(d\\)", "", " ", "A", "e f"]), max_size=8))
def test_tags_are_those_of_training(pieces: list[str]) -> None:
    """Removing and moving keep the other tags, as training splits them."""
    line = ",".join(pieces)
    others = [tag for tag in tags_of(line, ",") if tag.casefold() != "a"]
    (removed,) = after(without_tag(entries(line), "a")) or [line]
    assert [tag for tag in tags_of(removed, ",") if tag] == [tag for tag in others if tag]
    (moved,) = after(moved_tag(entries(line), "a", "front")) or [line]
    count = len(tags_of(line, ",")) - len(others)
    assert [tag.casefold() for tag in tags_of(moved, ",")][:count] == ["a"] * count
    assert [tag for tag in tags_of(moved, ",")[count:] if tag] == [tag for tag in others if tag]


@pytest.mark.parametrize("text", ["", "x" * 1001, "a\nb", "a\0", "\ud800"])
def test_bad_texts_are_told(text: str) -> None:
    for call in (
        lambda: replaced(entries("a"), text, "b"),
        lambda: with_tag(entries("a"), text),
        lambda: without_tag(entries("a"), text),
        lambda: moved_tag(entries("a"), text, "end"),
    ):
        with pytest.raises(DatasetError) as caught:
            call()
        assert len(sentences(caught.value)) == 1


def test_captions_that_would_be_too_long_are_named() -> None:
    long = "x" * LONGEST_CAPTION
    with pytest.raises(DatasetError) as caught:
        replaced(entries("x", long), "x", "y" * 1000)
    assert "'1.png'" in sentences(caught.value)[0] and "'0.png'" not in str(caught.value)
    with pytest.raises(DatasetError):
        with_tag(entries(long), "cat")
    assert after(replaced(entries(long + "y"), "y", "")) == [long]  # one that becomes shorter is not refused


def test_many_long_captions_take_linear_time() -> None:
    captions = entries(*["a, b, c, " * 2000] * 100)  # 1.8 MB, 600,000 tags
    start = time.process_time()
    without_duplicates(captions)
    without_tag(captions, "b")
    moved_tag(captions, "c", "front")
    replaced(captions, "a", "d")
    tag_counts(captions)
    assert time.process_time() - start < 20


def test_applying_is_one_change_that_is_undone(dataset: ImageSet) -> None:
    changes = replaced(dataset.entries()[0], "red", "blue")
    apply(dataset, changes, "replace red")
    assert [entry.caption for entry in dataset.entries()[0]] == ["a cat, blue", "a dog, blue", None]
    assert edits_in(dataset.folder).of("0.png").caption == "a cat, blue"  # type: ignore[union-attr]
    assert dataset.undo() == "replace red" and dataset.undo() == ""
    assert [entry.caption for entry in dataset.entries()[0]] == ["a cat, red", "a dog, red", None]


def test_a_caption_changed_since_the_preview_is_not_overwritten(dataset: ImageSet) -> None:
    changes = replaced(dataset.entries()[0], "red", "blue")
    dataset.change_image(dataset.entries()[0][1].id, {"caption": "mine"})
    with pytest.raises(StaleError) as caught:
        apply(dataset, changes, "replace red")
    assert caught.value.now == "mine"
    assert [entry.caption for entry in dataset.entries()[0]] == ["a cat, red", "mine", None]


def test_captions_that_no_file_can_hold_are_refused_and_nothing_is_lost(
    dataset: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_lora.datasets.image_set.MAX_BYTES", 300)
    before = (dataset.folder / "train-lora-dataset.json").read_bytes()
    with pytest.raises(DatasetError) as caught:
        apply(dataset, replaced(dataset.entries()[0], "red", "x" * 300), "replace red")
    assert len(caught.value.problems) == 1 and dataset.undoable == ""
    assert (dataset.folder / "train-lora-dataset.json").read_bytes() == before


def test_a_half_of_a_character_is_no_caption(dataset: ImageSet) -> None:
    with pytest.raises(DatasetError) as caught:
        dataset.change_image(dataset.entries()[0][0].id, {"caption": "a \ud83d"})
    assert len(caught.value.problems) == 1


def test_tags_by_frequency() -> None:
    found = tag_counts(entries("red, cat", "Red, red, dog", "RED, cat\ncat", None))
    assert [tuple(item) for item in found] == [("red", 3), ("cat", 2), ("dog", 1)]


def test_images_are_filtered() -> None:
    given = entries("Red cat, hat", "cat", "", None, "  ")

    def numbers(found: Sequence[ImageEntry]) -> list[str]:
        return [entry.name[0] for entry in found]

    assert numbers(matching(given, "red")) == ["0"] and numbers(matching(given, "CAT")) == ["0", "1"]
    assert [has_caption(entry) for entry in given] == [True, True, False, False, False]


def test_images_are_sorted() -> None:
    root = Path("none")
    folder = Folder(root, 1, None, root)
    names = ["img10.png", "IMG2.png", "a.png", "7.png", "img²3.png"]
    given = [ImageEntry(name, name, root / name, folder, NO_EDIT, None) for name in names]
    assert [entry.name for entry in in_order(given, "name")] == ["7.png", "a.png", "IMG2.png", "img10.png", "img²3.png"]
    tokens = {"img10.png": 5, "a.png": 9, "7.png": 5}
    assert [entry.name for entry in in_order(given, "tokens", tokens)][:3] == ["img10.png", "7.png", "a.png"]
    assert [entry.name for entry in in_order(given, "size", tokens)] == ["img10.png", "7.png", "a.png", "IMG2.png", "img²3.png"]
