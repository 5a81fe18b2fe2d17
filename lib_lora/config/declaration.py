"""What is said of one option: once, at its field. `option()` declares it; `options.py` reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

Place = Literal["basic", "advanced", "none"]
SetBy = Literal["preset", "file", "person"]
Affects = Literal["result", "length", "speed", "pictures", "files"]
IsPath = Literal["", "folder", "file"] | Callable[[str], bool]


@dataclasses.dataclass(frozen=True)
class ReadIf:
    """When a run reads an option at all.

    What no part of a run reads refuses nothing: neither the bounds of the option nor a rule over several look at it.

    Attributes:
        holds: from the option's group to whether it is read.
        since: why it has no effect otherwise, as the end of a sentence; empty if that goes without saying.
    """

    holds: Callable[[Any], bool]
    since: str


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What `option()` stores beside the default: everything that type and default do not say."""

    label: str
    help: str
    kohya: str | None
    ge: float | None
    le: float | None
    place: Place
    row: tuple[int, int]
    suggestions: tuple[str, ...]
    unset: str
    slider: int
    lines: int
    placeholder: str
    is_path: IsPath
    set_by: SetBy
    not_inherited: str
    in_kohya_form: bool
    metadata: str
    none_by_default: bool
    affects: Affects
    read_if: ReadIf | None


def option(
    default: Any,
    *,
    label: str,
    help: str,  # noqa: A002 - the field's own word
    kohya: str | None,
    ge: float | None = None,
    le: float | None = None,
    place: Literal["advanced", "none"] = "advanced",
    row: tuple[int, int] | None = None,
    suggestions: tuple[str, ...] = (),
    unset: str = "",
    slider: int = 0,
    lines: int = 1,
    placeholder: str = "",
    is_path: IsPath = "",
    set_by: SetBy | None = None,
    not_inherited: str = "",
    in_kohya_form: bool = True,
    metadata: str = "",
    none_by_default: bool = False,
    affects: Affects = "result",
    read_if: ReadIf | None = None,
) -> Any:
    """Declare an option.

    Args:
        default: default value; None if it depends on the model.
        label: the words beside the field.
        help: one or two sentences for a person who has not trained before.
        kohya: sd-scripts' name for it, or None where sd-scripts has none.
        ge: smallest legal number.
        le: largest legal number.
        place: `advanced` part of the form, or `none` for options of the command line only.
        row: row and column in the basic part of the form, which the option then belongs to.
        suggestions: texts that a form offers, where any text is legal.
        unset: what a default of None comes to, in words.
        slider: step of the slider that the form shows; 0 for a plain field.
        lines: lines of the form's field. A list has one text a line if there are several, else spaces between.
        placeholder: what an empty field shows.
        is_path: `folder` or `file` if it names one of the machine, or what says so of a value. The form lacks it where the webui
            hides folders, the queue's list shows the last part alone, and a file of somebody else never sets it.
        set_by: who may set it beside the person: a `preset` or a `file`, a `file` alone, or neither. Default: `person` for a
            path, else `preset`.
        not_inherited: why a file of somebody else does not set it. A path has a sentence without it.
        in_kohya_form: kohya_ss' form has a field for it.
        metadata: key of the entry in the LoRA file: `ss_…`, or `modelspec.…`, which is left out at the default.
        none_by_default: sd-scripts writes None for the default.
        affects: what another value changes. A resumed run may differ in all but `result`: `length` of the run, `speed`,
            `pictures` drawn meanwhile, and `files`: their names, places and contents beside the weights, and what is measured.
        read_if: when a run reads it; always if None.
    """
    declaration = Declaration(
        label, help, kohya, ge, le, "basic" if row else place, row or (0, 0), suggestions, unset, slider, lines, placeholder,
        is_path, set_by or ("person" if isinstance(is_path, str) and is_path else "preset"), not_inherited, in_kohya_form,
        metadata, none_by_default, affects, read_if,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata={"option": declaration})
