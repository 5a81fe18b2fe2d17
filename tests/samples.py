"""Legal values of options, for tests that go through all of them."""

from __future__ import annotations

from typing import Any

from lib_lora.config.options import Option


def sample(opt: Option) -> Any:
    """A legal value of `opt` that is not its default."""
    if opt.type is bool:
        return not opt.default
    if opt.choices:
        return next(choice for choice in opt.choices if choice != opt.default)
    if opt.type is tuple:
        return ["a=1"]
    if opt.type is str:
        return ".cap" if opt.name == "caption_extension" else "some text"
    low, high = opt.declaration.between or (0, 0)
    start = opt.default or 0
    near = [start + 1, start - 1] if opt.type is int else [start / 2 + 0.25, start / 2]
    return next(value for value in near if low <= value <= high and value != opt.default)
