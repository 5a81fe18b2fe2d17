"""The declaration of an option at its field: `option()` makes it, `options.py` reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Concatenate, Literal, ParamSpec

Place = Literal["basic", "advanced", "none"]
SetBy = Literal["preset", "file", "person"]
Affects = Literal["result", "length", "speed", "pictures", "files"]
IsPath = Literal["", "folder", "file"] | Callable[[str], bool]
SAME = ""
Facts = ParamSpec("Facts")


@dataclasses.dataclass(frozen=True)
class ReadIf:
    """When a run reads an option.

    An option that is not read causes no problem: neither its bounds nor rules over several options check it.

    Attributes:
        holds: takes the option's group and returns whether the option is read.
        since: why it has no effect otherwise, as the end of a sentence with `{name}` for the title of the option `name`; empty if
            that is obvious.
    """

    holds: Callable[[Any], bool]
    since: str


def above_zero(name: str) -> ReadIf:
    """Read if the option `name` of the same group is above 0."""
    return ReadIf(lambda group: getattr(group, name) > 0, f"{{{name}}} is 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Declaration:
    """What is said of an option at its field, besides its type and default.

    Attributes:
        label: text beside the field.
        help: one or two sentences for a person who has not trained before.
        kohya: sd-scripts' name, by default the field's own; None if sd-scripts has none.
        between: smallest and largest legal number.
        in_form: whether the form has it; else it is an option of the command line only.
        row: row and column in the basic part of the form, from 1; (0, 0) if it does not belong there.
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

    label: str
    help: str
    kohya: str | None = SAME
    between: tuple[float, float] | None = None
    in_form: bool = True
    row: tuple[int, int] = (0, 0)
    suggestions: tuple[str, ...] = ()
    unset: str = ""
    slider: int = 0
    lines: int = 1
    placeholder: str = ""
    is_path: IsPath = ""
    set_by: SetBy | None = None
    not_inherited: str = ""
    in_kohya_form: bool = True
    metadata: str = ""
    none_by_default: bool = False
    affects: Affects = "result"
    read_if: ReadIf | None = None

    @property
    def place(self) -> Place:
        """The part of the form that has it."""
        return "basic" if any(self.row) else "advanced" if self.in_form else "none"

    def of_field(self, name: str) -> Declaration:
        """The declaration of the field `name`, with what follows from the rest."""
        return dataclasses.replace(
            self,
            kohya=name if self.kohya == SAME else self.kohya,
            set_by=self.set_by or ("person" if self.is_path in ("folder", "file") else "preset"),
        )


def _with_default(declare: Callable[Facts, Declaration]) -> Callable[Concatenate[Any, Facts], Any]:
    def option(default: Any, /, *args: Facts.args, **facts: Facts.kwargs) -> Any:
        return dataclasses.field(default=default, metadata={"option": declare(*args, **facts)})

    return option


# declares an option: its default (None if it depends on the model), and the facts of `Declaration`
option = _with_default(Declaration)
