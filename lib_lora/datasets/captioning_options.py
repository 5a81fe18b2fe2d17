"""From a captioner's answer to a caption: threshold, spelling, unwanted tags, prefix and suffix."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from lib_lora.data.caption_processing import tags_of
from lib_lora.datasets.caption_changes import SEPARATOR
from lib_lora.datasets.captioners.captioner import Tags, is_readable
from lib_lora.errors import DatasetError

Mode = Literal["missing", "replace", "append"]
LONGEST_PREFIX, MOST_UNWANTED = 1000, 1000
MOST_TAGS_ASKED = 1000
_ESCAPED = re.compile(r"\\([()\[\]{}\\])")
_WORD = re.compile(r"[^\W_]{2}")


@dataclass(frozen=True)
class CaptioningOptions:
    """How captions are written.

    `mode`: only images without a caption, replace captions, or append to them. `prefix`, `suffix`: joined with a comma, or as
    they are if the prefix ends, or the suffix begins, with a space. `threshold`: the least probability of a tag, 0 to 1.
    `spaces`: instead of underscores, but not in emoticons such as ^_^. `unescape`: a bracket instead of a backslash with
    one. `unwanted`: tags that are left out. `most_tags`: the most probable ones; 0 for all.
    """

    mode: Mode = "missing"
    prefix: str = ""
    suffix: str = ""
    threshold: float = 0.35
    spaces: bool = True
    unescape: bool = True
    unwanted: tuple[str, ...] = ()
    most_tags: int = 0

    def problems(self) -> list[str]:
        """What is wrong with untrusted options, a sentence each."""
        found = []
        if self.mode not in ("missing", "replace", "append"):
            found.append(f"Captions: got {str(self.mode)[:40]!r}, must be missing, replace or append.")
        for title, text in (("Prefix", self.prefix), ("Suffix", self.suffix)):
            if len(text) > LONGEST_PREFIX or not is_readable(text):
                found.append(f"{title}: must have at most {LONGEST_PREFIX} characters, on one line; shorten it.")
        if not (math.isfinite(self.threshold) and 0 <= self.threshold <= 1):
            found.append(f"Threshold: got {self.threshold:g}, must be from 0 to 1.")
        if len(self.unwanted) > MOST_UNWANTED or any(len(tag) > LONGEST_PREFIX for tag in self.unwanted):
            found.append(f"Unwanted tags: must be at most {MOST_UNWANTED} tags of {LONGEST_PREFIX} characters; remove some.")
        if not 0 <= self.most_tags <= MOST_TAGS_ASKED:
            found.append(f"Most tags: got {self.most_tags}, must be from 0 (all) to {MOST_TAGS_ASKED}.")
        return found

    def require(self) -> None:
        """Check untrusted options.

        Raises:
            DatasetError: as `problems`.
        """
        found = self.problems()
        if found:
            raise DatasetError(found)


def written(answer: str | Tags, options: CaptioningOptions, before: str | None) -> str:
    """The caption of an image from a legal answer; empty if no tag is left. `before`: its present caption."""
    said = _sentence(answer, options) if isinstance(answer, str) else _tags(answer, options)
    if not said:
        return ""
    caption = _with_ends(said, options)
    if options.mode == "append" and before and before.strip():
        return "\n".join(f"{line}, {caption}" if line.strip() else line for line in before.split("\n"))
    return caption


def _tags(answer: Tags, options: CaptioningOptions) -> str:
    """The tags above the threshold, the most probable first; equal ones stay in their order."""
    unwanted = {_key(tag) for tag in options.unwanted}
    likely = [item for item in answer if item[1] >= options.threshold and _key(item[0]) not in unwanted]
    likely.sort(key=lambda item: -item[1])
    tags = dict.fromkeys(_spelt(tag, options) for tag, _ in likely)
    return ", ".join([*tags][: options.most_tags or None])


def _sentence(answer: str, options: CaptioningOptions) -> str:
    """A text; as a list of tags it is taken apart only where tags are unwanted or too many."""
    unwanted = {_key(tag) for tag in options.unwanted}
    tags = tags_of(answer, SEPARATOR)
    kept = [tag for tag in tags if _key(tag) not in unwanted][: options.most_tags or None]
    if len(kept) == len(tags):
        return SEPARATOR.join(_spelt(piece, options) for piece in answer.split(SEPARATOR))
    return ", ".join(_spelt(tag, options) for tag in kept)


def _spelt(tag: str, options: CaptioningOptions) -> str:
    if options.unescape:
        tag = _ESCAPED.sub(r"\1", tag)
    return tag.replace("_", " ") if options.spaces and _WORD.search(tag) else tag


def _key(tag: str) -> str:
    """What is equal for tags with spaces or underscores, escaped or not, in any case."""
    return _ESCAPED.sub(r"\1", tag).replace("_", " ").strip().casefold()


def _with_ends(caption: str, options: CaptioningOptions) -> str:
    prefix, suffix = options.prefix, options.suffix
    if prefix.strip():
        caption = prefix.lstrip() + caption if prefix[-1].isspace() else f"{prefix.strip().rstrip(SEPARATOR)}, {caption}"
    if suffix.strip():
        caption = caption + suffix.rstrip() if suffix[0].isspace() else f"{caption}, {suffix.strip().lstrip(SEPARATOR).lstrip()}"
    return caption
