"""What a captioner is, and what is taken from its answer."""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol

from PIL import Image

from lib_lora.errors import DatasetError

Tags = list[tuple[str, float]]  # with probabilities, 0 to 1

LONGEST_ANSWER = 10_000  # characters
MOST_TAGS, LONGEST_TAG = 200_000, 200
_CONTROL = {"Cc", "Cs"}  # of Unicode: control characters, and halves of characters; Python does not know the newest emoji
_WEB_PAGE = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE)
_MARKUP = re.compile(r"</(?:html|head|body|div|p|span|script|title|h[1-6])>", re.IGNORECASE)
_ERROR = "<error>"  # at the end of what the webui's own captions say after an error


class CaptionerError(DatasetError):
    """A captioner gives no caption for an image. The text is the end of a sentence: what failed, and the remedy."""

    def __init__(self, why: str) -> None:
        super().__init__([why])


class Captioner(Protocol):
    """Captions one image after the other, within its `with` block, whose start loads it.

    `name`: for messages. `seconds`: the time that an image may take. Methods may be called from different threads, but not at
    the same time, unless one takes longer than `seconds`.
    """

    name: str
    seconds: float

    def needs(self) -> str:
        """A sentence on what is missing on this computer and where it belongs; empty if nothing is."""
        ...

    def __enter__(self) -> Any: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def wait_for_turn(self) -> None:
        """Wait until the captioner may compute, for any time; called before each image."""
        ...

    def caption(self, image: Image.Image) -> str | Tags:
        """The caption of an RGB image as a text, or all tags with their probabilities.

        Raises:
            CaptionerError: it has none.
        """
        ...


def legal_answer(answer: object, name: str) -> str | Tags:
    """An untrusted answer of the captioner `name`; a text is one line.

    Raises:
        CaptionerError: it is no caption.
    """
    if isinstance(answer, str):
        return _legal_text(answer, name)
    if isinstance(answer, Sequence) and not isinstance(answer, (bytes, bytearray)):
        return _legal_tags(answer, name)
    raise CaptionerError(f"{name} answered with something that is no text; choose another captioner.")


def _legal_text(answer: str, name: str) -> str:
    if len(answer) > LONGEST_ANSWER:
        raise CaptionerError(f"{name} answered with more than {LONGEST_ANSWER} characters; ask for a short caption.")
    if _WEB_PAGE.match(answer) or _MARKUP.search(answer):
        raise CaptionerError(f"{name} answered with a web page instead of a caption; check its address.")
    if _ERROR in answer:
        raise CaptionerError(f"{name} reported an error; the console says more.")
    text = " ".join(answer.split())
    if not is_readable(text):
        raise CaptionerError(f"{name} answered with characters that are no text; try again, or choose another captioner.")
    if not any(character.isalnum() for character in text):
        raise CaptionerError(f"{name} answered nothing; try again, or choose another captioner.")
    return text


def _legal_tags(answer: Sequence[Any], name: str) -> Tags:
    if len(answer) > MOST_TAGS:
        raise CaptionerError(f"{name} answered with more than {MOST_TAGS} tags; choose another captioner.")
    found: Tags = []
    for item in itertools.islice(answer, MOST_TAGS):
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not _is_tag(item[0]) or not _is_share(item[1]):
            raise CaptionerError(f"{name} answered with something that is no tag with a probability; choose another captioner.")
        found.append((" ".join(item[0].split()), float(item[1])))
    return found


def is_readable(text: str) -> bool:
    """Whether `text` has no control characters and the like."""
    return not any(unicodedata.category(character) in _CONTROL for character in text)


def _is_tag(tag: object) -> bool:
    return isinstance(tag, str) and bool(tag.strip()) and len(tag) <= LONGEST_TAG and is_readable(" ".join(tag.split()))


def _is_share(probability: object) -> bool:
    return isinstance(probability, (int, float)) and math.isfinite(probability) and 0 <= probability <= 1
