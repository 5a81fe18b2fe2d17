"""Sample prompts as sd-scripts reads them: one per line with flags (`line_to_prompt_dict`), or a file (`load_prompts`).

What sd-scripts ignores, or only its own sampler uses, is ignored and reported once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_lora.config.options import shown
from lib_lora.config.toml_reader import parse_toml
from lib_lora.errors import ConfigError
from lib_lora.paths import at_home, path_problem

MAX_BYTES = 2**20
TITLE = "Sample prompts (sample_prompts): "
FLAGS = "--n (negative) --w --h (size) --d (seed) --l (guidance) --s (steps)"
MOST_STEPS, SMALLEST_SIDE = 1000, 64  # sd-scripts clamps to these limits
MOST_TOLD = 5
_FIELDS = {"n": "negative", "w": "width", "h": "height", "d": "seed", "l": "guidance", "s": "steps"}
_KEYS = {  # in TOML and JSON files
    "negative_prompt": "n", "width": "w", "height": "h", "seed": "d", "scale": "l", "sample_steps": "s",
}  # fmt: skip
_LARGEST = {"w": 2048, "h": 2048, "d": 2**64 - 1, "l": 100}
_FLAG = re.compile(r"([A-Za-z]+) (.+)", re.DOTALL)
_WHOLE, _DECIMAL = re.compile(r"\d+"), re.compile(r"[\d.]+")
_LINE_END = re.compile(r"\r\n|\r|\n")


class Told(dict[str, list[str]]):
    """Part of a prompt that is not read -> where it occurs."""

    def add(self, what: str, place: str) -> None:
        """Add a place of `what`."""
        self.setdefault(what, []).append(place)


@dataclass(frozen=True)
class Prompt:
    """A prompt. Values that are None are not given."""

    text: str
    negative: str = ""
    width: int | None = None
    height: int | None = None
    seed: int | None = None
    guidance: float | None = None
    steps: int | None = None


def read_prompts(value: str) -> list[Prompt]:
    """The prompts of the option: its lines, or those of the file that it names. Empty lines and `# …` are skipped.

    Raises:
        ValueError: with what is wrong, as the end of a sentence.
    """
    return _read(value)[0]


def prompt_notes(value: str) -> list[str]:
    """A note on parts of the prompts that are not read. `read_prompts` reports prompts that cannot be read at all."""
    try:
        told = _read(value)[1]
    except ValueError:
        return []
    if not told:
        return []
    listed = [f"{what} ({_places(places)})" for what, places in list(told.items())[:MOST_TOLD]]
    more = f" and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return [f"{TITLE}{', '.join(listed)}{more} has no effect; supported are {FLAGS}."]


def _places(places: list[str]) -> str:
    return places[0] if len(places) == 1 else f"{places[0]} and {len(places) - 1} more"


def names_a_file(value: str) -> bool:
    """Whether the value is the path of a prompt file."""
    return not _LINE_END.search(value.strip()) and value.strip().lower().endswith((".txt", ".toml", ".json"))


def _read(value: str) -> tuple[list[Prompt], Told]:
    """The prompts, and the parts of them that are not read."""
    text, told = value.strip(), Told()
    if names_a_file(text):
        path = Path(text)
        content = _file_text(path)
        if path.suffix.lower() != ".txt":
            return [_from_item(number, item, told) for number, item in enumerate(_items(path, content), 1)], told
        text = content
    numbered = [(number, line.strip()) for number, line in enumerate(_LINE_END.split(text), 1)]
    return [_from_line(f"line {number}", line, told) for number, line in numbered if line and not line.startswith("#")], told


def _file_text(path: Path) -> str:
    problem = path_problem(str(path))
    if problem:
        raise ValueError(f"got {shown(str(path))}, which {problem.rstrip('.')}")
    try:
        path = at_home(str(path))
        if path.exists() and not path.is_file():  # reading a pipe would block
            raise OSError("it is not a file")
        if path.stat().st_size > MAX_BYTES:
            raise OSError(f"it is larger than {MAX_BYTES // 2**20} MB")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"got {shown(str(path))}, which cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise ValueError(f"got {shown(str(path))}, which cannot be read ({error})") from error


def _items(path: Path, text: str) -> list[Any]:
    """The prompts of a TOML file ([prompt] with [[prompt.subset]]) or of a JSON file (a list)."""
    start = f"got {shown(str(path))}, "
    toml = path.suffix.lower() == ".toml"
    try:
        found: Any = parse_toml(text) if toml else json.loads(text)
    except (ValueError, RecursionError, IndexError, ConfigError) as error:
        raise ValueError(start + f"which cannot be read ({' '.join(str(error).split())})".rstrip(".")) from error
    if toml:
        shared = found.get("prompt")
        subsets = shared.get("subset") if isinstance(shared, dict) else None
        if not isinstance(shared, dict) or not isinstance(subsets, list) or not all(isinstance(one, dict) for one in subsets):
            raise ValueError(start + "which has no [prompt] with [[prompt.subset]]")
        return [{**{key: value for key, value in shared.items() if key != "subset"}, **subset} for subset in subsets]
    if not isinstance(found, list) or not all(isinstance(item, (str, dict)) for item in found):
        raise ValueError(start + "which is not a list of prompts")
    return found


def _from_item(number: int, item: str | Mapping[str, Any], told: Told) -> Prompt:
    """A prompt from a line, or from a table with sd-scripts' names."""
    place = f"prompt {number}"
    if isinstance(item, str):
        return _from_line(place, item.strip(), told)
    prompt = Prompt("")
    for key, value in item.items():
        if key == "prompt" and isinstance(value, str):
            prompt = replace(prompt, text=value.strip())
        elif key in ("enum", "subset"):
            continue
        elif key in _KEYS and isinstance(value, str if key == "negative_prompt" else (int, float)):
            prompt = _with_flag(prompt, place, _KEYS[key], value if isinstance(value, str) else _written(value), key, told)
        else:
            told.add(shown(key), place)
    return prompt


def _from_line(place: str, line: str, told: Told) -> Prompt:
    text, *flags = line.split(" --")
    prompt = Prompt(text.strip())
    for flag in flags:
        match = _FLAG.match(flag)
        name = match[1].lower() if match else flag.strip()
        if match is None and name.lower() == "n":
            continue  # no negative prompt
        if match is None or name not in _FIELDS:
            told.add(f"--{_short(flag.strip() if match is None else name)}", place)
        else:
            prompt = _with_flag(prompt, place, name, match[2], f"--{name}", told)
    return prompt


def _with_flag(prompt: Prompt, place: str, name: str, text: str, title: str, told: Told) -> Prompt:
    """`prompt` with the flag `name` set from `text`; as in sd-scripts, what follows a number is ignored.

    Raises:
        ValueError: no picture can be drawn with it.
    """
    if name == "n":
        return replace(prompt, negative=text.strip())
    value, rest = _number(name, text)
    if value is None:
        told.add(f"{title} {_short(text.strip())}", place)
        return prompt
    if rest:
        told.add(f"{_short(rest)} after {title}", place)
    if name in _LARGEST and value > _LARGEST[name]:
        raise ValueError(f"{place} has {title} {_short(text.strip())}, must be at most {_LARGEST[name]}")
    if name in ("w", "h"):
        value = max(SMALLEST_SIDE, value)
    if name == "s":
        value = max(1, min(MOST_STEPS, value))
    field: dict[str, Any] = {_FIELDS[name]: value}
    return replace(prompt, **field)


def _number(name: str, text: str) -> tuple[float | int | None, str]:
    """The number that `text` begins with, and the rest; a `.0` after a whole number is no rest."""
    pattern, kind = (_DECIMAL, float) if name == "l" else (_WHOLE, int)
    match = pattern.match(text)
    read: Callable[[str], float | int] = kind
    try:
        value = read(match[0]) if match else None
    except ValueError:  # 1.2.3, or more digits than Python reads
        return None, ""
    rest = text[match.end() :].strip() if match else ""
    return value, "" if re.fullmatch(r"\.0*", rest) and name != "l" else rest


def _written(number: float) -> str:
    """A number of a file as a line would write it."""
    whole = isinstance(number, int) or (number == number and abs(number) < 2**63 and number == int(number))
    if not whole:
        return repr(number)
    return str(int(number)) if abs(number) < 10**300 else "1" + "0" * 300


def _short(text: str) -> str:
    return text if len(text) <= 20 and text.isprintable() else repr(text[:20])[1:-1] + "…"
