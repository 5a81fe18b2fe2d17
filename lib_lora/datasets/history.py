"""The changes of a dataset that can be undone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lib_lora.data.edits import ImageEdit
from lib_lora.errors import DatasetError

MOST_UNDONE = 100


@dataclass(frozen=True)
class Change:
    """A change that can be undone.

    `number`: tells it from others. `what`: in words, for the button. `before`, `after`: the edits of its images, by place.
    """

    number: int
    what: str
    before: Mapping[str, ImageEdit]
    after: Mapping[str, ImageEdit]


class OvertakenError(DatasetError):
    """Somebody else has changed the same meanwhile, and nothing was done."""


class History:
    """The last MOST_UNDONE changes. The dataset's lock is held by who calls."""

    def __init__(self) -> None:
        self._changes: list[Change] = []
        self._numbers = itertools.count(1)

    @property
    def last(self) -> Change | None:
        """The change that Undo takes back."""
        return self._changes[-1] if self._changes else None

    def add(
        self, what: str, before: Mapping[str, ImageEdit], after: Mapping[str, ImageEdit], joins: Change | None = None
    ) -> Change:
        """Note a change. `joins`: an earlier one that is undone together with it, if it is the last."""
        if joins is not None and self._changes and self._changes[-1] is joins:
            joined = Change(joins.number, what, {**before, **joins.before}, {**joins.after, **after})
            self._changes[-1] = joined
            return joined
        change = Change(next(self._numbers), what, before, after)
        self._changes = [*self._changes[-MOST_UNDONE + 1 :], change]
        return change

    def drop(self) -> None:
        """Forget the last change."""
        self._changes.pop()

    def forget(self, place: str) -> None:
        """Forget what was changed of an image that is removed: another one may come to its place."""
        kept = [
            replace(change, before=_without(change.before, place), after=_without(change.after, place))
            for change in self._changes
        ]
        self._changes = [change for change in kept if change.after]

    def edits(self) -> Iterator[ImageEdit]:
        """Every edit that Undo may bring back."""
        return (edit for change in self._changes for edit in change.before.values())


def _without(edits: Mapping[str, ImageEdit], place: str) -> dict[str, ImageEdit]:
    return {other: edit for other, edit in edits.items() if other != place}
