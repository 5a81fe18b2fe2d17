"""Restoring the host after a run, as far as possible, and reporting what could not be restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from lib_lora.errors import NotGivenBack, TrainLoraError


@contextmanager
def given_back() -> Iterator[ExitStack]:
    """An exit stack that unwinds completely even if callbacks fail.

    Raises:
        NotGivenBack: a part could not be restored; it also carries the error of the body, if any.
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
            stack.close()  # runs all callbacks even if one fails
        except Exception as error:  # noqa: BLE001 - whatever the host meets while it takes its parts back
            lost = (
                f"Not everything of the model could be restored ({type(error).__name__}: {error}); restart the webui before you "
                "generate or train."
            )
            raise NotGivenBack([*told, lost]) from error
