"""What a user can do wrong, or meet: every error that is answered with sentences instead of a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class Problem(str):
    """A sentence that says what is wrong, and `option`, the name of the option to change; empty where it is none."""

    option: str

    def __new__(cls, option: str, text: str) -> Problem:
        problem = super().__new__(cls, text)
        problem.option = option
        return problem


class TrainLoraError(Exception):
    """Base of all errors whose text is written for the user."""

    @property
    def problems(self) -> list[str]:
        """The sentences to show, one per problem."""
        return [str(self)]


class _SeveralProblemsError(TrainLoraError):
    """Carries more than one sentence."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self._problems = list(problems)

    @property
    def problems(self) -> list[str]:
        return list(self._problems)


class ConfigError(_SeveralProblemsError):
    """Wrong settings. Carries every problem of the request at once."""


class DatasetError(ConfigError):
    """Images or captions that cannot be trained on."""


class ModelError(TrainLoraError):
    """The base model is missing, unreadable or of a kind that is not supported."""


class HostChanged(TrainLoraError):  # noqa: N818 - the name that the documents use
    """The model was moved or exchanged under a running job."""


class ModelAway(HostChanged):
    """The host cannot lend the model again for now; the text says what brings it back."""


class NotGivenBack(HostChanged, _SeveralProblemsError):  # noqa: N818 - the state of things, as HostChanged
    """A part of the host could not be brought back as it was. Carries what ended the run before, too."""


class LoraFileError(TrainLoraError):
    """A LoRA file that cannot be read, written or loaded."""
