"""Changes of many captions at once, each with a preview: find and replace, and adding, removing and moving tags.

Tags are what training takes for them (`tags_of`): the text between separators, in each line of a caption. A tag is the same in
upper and lower case, as it is for CLIP's tokenizer. What a change is not about stays as it is, spaces included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lib_lora.data.folders import named
from lib_lora.datasets.image_set import LONGEST_CAPTION, ImageEntry, ImageSet, StaleError, is_text
from lib_lora.errors import DatasetError

LONGEST = 1000  # characters of a text to find, of its replacement, and of tags
SEPARATOR = ","
Place = Literal["front", "end"]
Line = Callable[[str], str]


class _TooLongError(Exception):
    """A caption would be longer than LONGEST_CAPTION."""


@dataclass(frozen=True)
class CaptionChange:
    """What a change makes of one caption. `before`: None if the image has none."""

    place: str
    name: str
    before: str | None
    after: str


@dataclass(frozen=True)
class CaptionChanges:
    """The captions that a change alters, in the order of the images."""

    preview: tuple[CaptionChange, ...]

    @property
    def captions(self) -> dict[str, str]:
        """The new captions by the places of their images."""
        return {change.place: change.after for change in self.preview}


def replaced(
    entries: Sequence[ImageEntry],
    find: str,
    replacement: str,
    *,
    case: bool = False,
    whole_tag: bool = False,
    separator: str = SEPARATOR,
) -> CaptionChanges:
    """Find and replace plain text. A tag that is replaced by nothing is removed with its separator.

    Args:
        entries: the images.
        find, replacement: taken literally.
        case: whether upper and lower case differ.
        whole_tag: replace only whole tags.
        separator: between tags.

    Raises:
        DatasetError: nothing is to be found, a text is not allowed, or a caption would be too long.
    """
    _require_text("Find", find)
    _require_text("Replace with", replacement, may_be_empty=True)
    pattern = re.compile(re.escape(find), 0 if case else re.IGNORECASE)
    wanted = find.strip() if case else _key(find)

    def anywhere(caption: str) -> str:
        found = sum(1 for _ in pattern.finditer(caption))
        if found and len(caption) + found * (len(replacement) - len(find)) > LONGEST_CAPTION:
            raise _TooLongError
        return pattern.sub(lambda _: replacement, caption)

    def tags(line: str) -> str:
        pieces = line.split(separator)
        if not any((piece.strip() if case else _key(piece)) == wanted for piece in pieces):
            return line
        kept = []
        for piece in pieces:
            if (piece.strip() if case else _key(piece)) != wanted:
                kept.append(piece)
            elif replacement:
                kept.append(_around(piece, replacement))
        return _joined(kept, line, separator)

    if whole_tag and not wanted:
        raise DatasetError(["Find: is empty; give the tag that is to be replaced."])
    return _changes(entries, _by_lines(tags) if whole_tag else anywhere)


def with_tag(entries: Sequence[ImageEntry], tag: str, at: Place | int = "end", separator: str = SEPARATOR) -> CaptionChanges:
    """Add a tag, or several with separators between, to every line that does not have it.

    `at`: its place, or behind so many tags.

    Raises:
        DatasetError: the tag is not allowed, or a caption would be too long.
    """
    wanted = _named_tags(tag, separator)
    if isinstance(at, int) and not 0 <= at <= LONGEST_CAPTION:
        raise DatasetError([f"Add behind: got {at}, must be from 0 to {LONGEST_CAPTION} tags."])

    def added(line: str) -> str:
        pieces = line.split(separator) if line.strip() else []
        present = {_key(piece) for piece in pieces}
        new = [name for name in wanted if _key(name) not in present]
        return _inserted(pieces, new, _index(at, pieces), line, separator) if new else line

    def caption(text: str) -> str:
        return _by_lines(added)(text) if text.strip() else added("")

    return _changes(entries, caption)


def without_tag(entries: Sequence[ImageEntry], tag: str, separator: str = SEPARATOR) -> CaptionChanges:
    """Remove a tag, or several with separators between.

    Raises:
        DatasetError: the tag is not allowed.
    """
    unwanted = {_key(name) for name in _named_tags(tag, separator)}

    def removed(line: str) -> str:
        pieces = line.split(separator)
        kept = [piece for piece in pieces if _key(piece) not in unwanted]
        return line if len(kept) == len(pieces) else _joined(kept, line, separator)

    return _changes(entries, _by_lines(removed))


def moved_tag(entries: Sequence[ImageEntry], tag: str, to: Place, separator: str = SEPARATOR) -> CaptionChanges:
    """Move a tag, or several with separators between, to the front or the end of the lines that have it.

    Raises:
        DatasetError: the tag is not allowed.
    """
    order = {_key(name): number for number, name in enumerate(_named_tags(tag, separator))}

    def moved(line: str) -> str:
        pieces = line.split(separator)
        taken = sorted((piece.strip() for piece in pieces if _key(piece) in order), key=lambda name: order[_key(name)])
        there = pieces[: len(taken)] if to == "front" else pieces[len(pieces) - len(taken) :]
        if not taken or [piece.strip() for piece in there] == taken:
            return line
        kept = [piece for piece in pieces if _key(piece) not in order]
        return _inserted(kept, taken, _index(to, kept), line, separator)

    return _changes(entries, _by_lines(moved))


def without_duplicates(entries: Sequence[ImageEntry], separator: str = SEPARATOR) -> CaptionChanges:
    """Remove the tags that a line has already."""

    def single(line: str) -> str:
        seen: set[str] = set()
        kept = []
        pieces = line.split(separator)
        for piece in pieces:
            if _key(piece) in seen:
                continue
            seen |= {_key(piece)} - {""}
            kept.append(piece)
        return line if len(kept) == len(pieces) else _joined(kept, line, separator)

    return _changes(entries, _by_lines(single))


def apply(dataset: ImageSet, changes: CaptionChanges, what: str) -> None:
    """Give the images their new captions, as one change that can be undone.

    Args:
        dataset: the dataset of the entries.
        changes: as previewed.
        what: the change in words, for Undo.

    Raises:
        StaleError: a caption is no longer as in the preview; nothing is changed.
        DatasetError, OSError: as `ImageSet.change`.
    """
    with dataset.held():
        now = {entry.place: entry for entry in dataset.entries()[0]}
        for change in changes.preview:
            entry = now.get(change.place)
            if entry is None:
                raise DatasetError([f"The image {change.name!r} does not exist any more; look at the changes again."])
            if entry.caption != change.before:
                raise StaleError(change.name, entry.caption or "")
        if changes.preview:
            dataset.change({place: replace(now[place].edit, caption=text) for place, text in changes.captions.items()}, what)


def _changes(entries: Sequence[ImageEntry], rule: Line) -> CaptionChanges:
    """The captions that `rule` alters.

    Raises:
        DatasetError: captions become too long.
    """
    found, long = [], []
    for entry in entries:
        before = entry.caption or ""
        try:
            after = rule(before)
            if after != before and len(after) > LONGEST_CAPTION:
                raise _TooLongError
        except _TooLongError:
            long.append(entry.name)
            continue
        if after != before:
            found.append(CaptionChange(entry.place, entry.name, entry.caption, after))
    if long:
        captions = "The captions" if len(long) > 1 else "The caption"
        raise DatasetError(
            [f"{captions} of {named(long)} would have more than {LONGEST_CAPTION} characters; nothing was changed."]
        )
    return CaptionChanges(tuple(found))


def _by_lines(rule: Line) -> Line:
    """`rule` for each line of a caption that is not blank."""
    return lambda caption: "\n".join(rule(line) if line.strip() else line for line in caption.split("\n"))


def _key(tag: str) -> str:
    return tag.strip().casefold()


def _around(piece: str, tag: str) -> str:
    """`tag` with the spaces around `piece`."""
    start, end = len(piece) - len(piece.lstrip()), len(piece.rstrip())
    return piece[:start] + tag + piece[end:]


def _index(at: Place | int, pieces: Sequence[str]) -> int:
    return {"front": 0, "end": len(pieces)}[at] if isinstance(at, str) else min(at, len(pieces))


def _inserted(pieces: list[str], tags: Sequence[str], index: int, line: str, separator: str) -> str:
    """A line of `pieces` with `tags` in between, with the same gap after separators as `line`."""
    given = line.split(separator)
    gap = given[1][: len(given[1]) - len(given[1].lstrip())] if len(given) > 1 and given[1].strip() else " "
    if index == len(pieces) and pieces and not pieces[-1].strip():  # a separator at the end
        pieces, index = pieces[:-1], index - 1
    before, after = pieces[:index], pieces[index:]
    if not after and before:
        before = [*before[:-1], before[-1].rstrip()]
    if not before and after and not after[0][:1].isspace():
        after = [gap + after[0], *after[1:]]
    new = [gap + tag for tag in tags]
    return _joined([*before, *new, *after], line, separator)


def _joined(pieces: Sequence[str], line: str, separator: str) -> str:
    """A line of `pieces`, which begins as `line` does."""
    text = separator.join(pieces)
    return line[: len(line) - len(line.lstrip())] + text.lstrip() if text.strip() else ""


def _named_tags(text: str, separator: str) -> list[str]:
    """The tags of an untrusted text, each once.

    Raises:
        DatasetError: there is none, or the text is not allowed.
    """
    _require_text("Tag", text)
    found = {_key(tag): tag.strip() for tag in reversed(text.split(separator)) if tag.strip()}
    if not found:
        raise DatasetError(["Tag: is empty; give a tag, or several with commas between."])
    return list(found.values())[::-1]


def _require_text(title: str, text: str, *, may_be_empty: bool = False) -> None:
    if not text and not may_be_empty:
        raise DatasetError([f"{title}: is empty; give a text."])
    if len(text) > LONGEST:
        raise DatasetError([f"{title}: has {len(text)} characters, must have at most {LONGEST}; shorten it."])
    if not is_text(text) or "\n" in text or "\r" in text:
        raise DatasetError([f"{title}: contains a line break or a character that is no text; remove it."])
