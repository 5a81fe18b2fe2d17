"""What was borrowed is given back as far as at all possible, and what could not be brought back is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lib_lora.errors import NotGivenBack, TrainLoraError


@contextmanager
def given_back() -> Iterator[ExitStack]:
    """An exit stack that unwinds to its end, whatever fails on the way.

    Raises:
        NotGivenBack: a part could not be brought back; it also carries why the body ended, where that was an error.
    """
    stack, told = ExitStack(), list[str]()
    try:
        yield stack
    except TrainLoraError as error:
        told = error.problems
        raise
    except Exception as error:
        told = [f"An unexpected error: {type(error).__name__}: {error}."]
        raise
    finally:
        try:
            stack.close()  # the rest is unwound even so
        except Exception as error:  # noqa: BLE001 - whatever the host meets while it takes its parts back
            raise NotGivenBack([*told, _sentence(error)]) from error


def _sentence(error: Exception) -> str:
    return (
        f"Not everything of the model could be restored ({type(error).__name__}: {error}); restart the webui before you generate "
        "or train."
    )
