"""Errors with messages for the user, shown instead of a traceback, and how many messages are shown at once."""

from __future__ import annotations

from collections.abc import Sequence

MOST, NEWEST = 50, 10


class Problem(str):
    """A message on what is wrong; `option` is the name of the option to change, or empty."""

    option: str

    def __new__(cls, option: str, text: str) -> Problem:
        problem = super().__new__(cls, text)
        problem.option = option
        return problem


class TrainLoraError(Exception):
    """Base of all errors whose text is written for the user."""

    @property
    def problems(self) -> list[str]:
        """The messages to show, one per problem."""
        return [str(self)]


class _SeveralProblemsError(TrainLoraError):
    """An error with several messages."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self._problems = list(problems)

    @property
    def problems(self) -> list[str]:
        return list(self._problems)


class ConfigError(_SeveralProblemsError):
    """Wrong settings; carries every problem of the request."""


class DatasetError(ConfigError):
    """Images or captions that cannot be trained on."""


class NoDatasetError(DatasetError):
    """There is no such dataset or image, or not any more."""


class TooLargeError(DatasetError):
    """A file is larger than a dataset takes."""


class DiskError(DatasetError):
    """The disk did not take images or captions."""


class ModelError(TrainLoraError):
    """The base model is missing, unreadable or not supported."""


class HostChanged(TrainLoraError):  # noqa: N818 - the name that the documents use
    """The model was moved or replaced during a run."""


class ModelAway(HostChanged):
    """The host cannot lend the model again for now; the text says what to do."""


class NotGivenBack(HostChanged, _SeveralProblemsError):  # noqa: N818 - the state of things, as HostChanged
    """A part of the host could not be restored; also carries the error that ended the run."""


class LoraFileError(TrainLoraError):
    """A LoRA file that cannot be read, written or loaded."""


def bounded(texts: Sequence[str], most: int = MOST, newest: int = NEWEST) -> list[str]:
    """At most `most` of `texts` with the last `newest`, and a line in the gap that says how many were omitted."""
    if len(texts) <= most:
        return list(texts)
    return [*texts[: most - newest], f"… and {len(texts) - most} more.", *texts[len(texts) - newest :]]
