"""The declaration of an option at its field: `option()` makes it, `options.py` reads it."""

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
    """When a run reads an option.

    An option that is not read causes no problem: neither its bounds nor rules over several options check it.

    Attributes:
        holds: takes the option's group and returns whether the option is read.
        since: why it has no effect otherwise, as the end of a sentence; empty if that is obvious.
    """

    holds: Callable[[Any], bool]
    since: str


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What `option()` stores about an option, besides its type and default."""

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
        label: text beside the field.
        help: one or two sentences for a person who has not trained before.
        kohya: sd-scripts' name; None if sd-scripts has none.
        ge: smallest legal number.
        le: largest legal number.
        place: `advanced` part of the form, or `none` for options of the command line only.
        row: row and column in the basic part of the form, if the option belongs there.
        suggestions: texts that the form suggests; any text is legal.
        unset: what a default of None means, in words.
        slider: step of the slider that the form shows; 0 for a plain field.
        lines: lines of the form's field. If there are several, a list has one item per line, else spaces between items.
        placeholder: what an empty field shows.
        is_path: `folder` or `file` if the value is a path, or a function that decides it for a value. The form lacks it if the
            webui hides folders, the queue's list shows only its last part, and imported files never set it.
        set_by: who may set it besides the user: presets and imported files (`preset`), imported files only (`file`), or nobody
            (`person`). Default: `person` for a path, else `preset`.
        not_inherited: why an imported file does not set it. Paths have a default sentence.
        in_kohya_form: whether kohya_ss' form has a field for it.
        metadata: key in the LoRA file's metadata: `ss_…`, or `modelspec.…`, which is omitted for the default.
        none_by_default: whether sd-scripts writes None for the default.
        affects: what its value changes: the `result`, the run's `length` or `speed`, the `pictures` that it draws, or `files`
            (names, places, contents besides the weights, measurements). A resumed run may change all but `result`.
        read_if: when a run reads it; always if None.
    """
    declaration = Declaration(
        label, help, kohya, ge, le, "basic" if row else place, row or (0, 0), suggestions, unset, slider, lines, placeholder,
        is_path, set_by or ("person" if isinstance(is_path, str) and is_path else "preset"), not_inherited, in_kohya_form,
        metadata, none_by_default, affects, read_if,
    )  # fmt: skip
    return dataclasses.field(default=default, metadata={"option": declaration})
