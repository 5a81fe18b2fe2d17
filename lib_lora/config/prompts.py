"""Sample prompts: one a line, with sd-scripts' flags behind (`line_to_prompt_dict`)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from lib_lora.data.paths import path_problem

MAX_BYTES = 2**20
FLAGS = "--n (negative) --w --h (size) --d (seed) --l (guidance) --s (steps)"
_NUMBERS = {"w": int, "h": int, "d": int, "s": int, "l": float}
_FLAG = re.compile(r"([A-Za-z]+) (.+)", re.DOTALL)


@dataclass(frozen=True)
class Prompt:
    """One line. What is None was not said."""

    text: str
    negative: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    guidance: float | None = None
    steps: int | None = None


def read_prompts(value: str) -> list[Prompt]:
    """The prompts of the option: its lines, or those of the text file that it names. Empty lines and `# …` say nothing.

    Raises:
        ValueError: with what is wrong, in words that go on after the option's name.
    """
    text = value.strip()
    if names_a_file(text):
        text = _file_text(Path(text).expanduser())
    numbered = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    return [_prompt(number, line) for number, line in numbered if line and not line.startswith("#")]


def names_a_file(value: str) -> bool:
    """Whether the option names a file of prompts, and is none itself."""
    return "\n" not in value.strip() and value.strip().lower().endswith((".txt", ".toml", ".json"))


def _file_text(path: Path) -> str:
    if path.suffix.lower() != ".txt":
        raise ValueError(f"got {str(path)!r}, must be a .txt with one prompt a line")
    problem = path_problem(str(path))
    if problem:
        raise ValueError(f"got {str(path)!r}, which {problem.rstrip('.')}")
    try:
        if path.exists() and not path.is_file():  # a pipe would never answer
            raise OSError("it is no file")
        if path.stat().st_size > MAX_BYTES:
            raise OSError(f"it is larger than {MAX_BYTES // 2**20} MB")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(f"got {str(path)!r}, which cannot be read ({error})") from error


def _prompt(number: int, line: str) -> Prompt:
    text, *flags = line.split(" --")
    found: dict[str, str | int | float] = {}
    for flag in flags:
        match = _FLAG.fullmatch(flag.strip())
        name = match[1].lower() if match else flag.strip()
        if match is None or (name != "n" and name not in _NUMBERS):
            raise ValueError(f"line {number} has --{name}, must be one of {FLAGS} with a value")
        try:
            found[name] = match[2].strip() if name == "n" else _NUMBERS[name](match[2])
        except ValueError as error:
            raise ValueError(f"line {number} has --{name} {match[2].strip()!r}, must be a number") from error
    problem = _out_of_range(found)
    if problem:
        raise ValueError(f"line {number} has {problem}")
    names = {"n": "negative", "w": "width", "h": "height", "d": "seed", "l": "guidance", "s": "steps"}
    return Prompt(text.strip(), **{names[name]: value for name, value in found.items()})  # type: ignore[arg-type]


def _out_of_range(found: dict[str, str | int | float]) -> str | None:
    limits = {"w": (64, 2048), "h": (64, 2048), "d": (0, 2**32 - 1), "l": (0, 100), "s": (1, 1000)}
    for name, (low, high) in limits.items():
        value = found.get(name)
        if isinstance(value, (int, float)) and not low <= value <= high:
            return f"--{name} {value:g}, must be from {low} to {high}"
    return None
