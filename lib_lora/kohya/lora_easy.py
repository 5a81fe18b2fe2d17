"""The layout of LoRA_Easy_Training_Scripts: sections of `args` and `dataset_args`, and one list of subsets for one dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Place = tuple[int, ...]
INNER = ("args", "dataset_args")
LEFT_OUT = "LoRA_Easy_Training_Scripts leaves out what is empty, false or 0."
NAME_OF_SUBSET = "A name for the form alone."


def is_lora_easy(settings: Mapping[str, Any]) -> bool:
    """Whether a file has this layout."""
    sections = [value for value in settings.values() if isinstance(value, Mapping)]
    inner = any(isinstance(section.get(name), Mapping) for section in sections for name in INNER)
    return "datasets" not in settings and (inner or _subsets(settings) != [])


def lora_easy_entries(settings: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Place | None, str]]:
    """Key, name, value, place in the dataset, and why it does not count, of every setting; "" where it counts."""
    subsets = _subsets(settings)
    for key, value in settings.items():
        if key == "subsets" and subsets:
            for number, subset in enumerate(subsets):
                yield from _subset(f"subsets[{number}]", subset, (0, number))
        elif not isinstance(value, Mapping):
            yield key, key, value, None, ""
        else:
            yield from _section(key, value)


def _subsets(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = settings.get("subsets")
    return found if isinstance(found, list) and all(isinstance(subset, Mapping) for subset in found) else []


def _section(key: str, section: Mapping[str, Any]) -> Iterator[tuple[str, str, Any, Place | None, str]]:
    for inner, values in section.items():
        if inner not in INNER or not isinstance(values, Mapping):
            yield f"{key}.{inner}", inner, values, None, ""
            continue
        place: Place | None = () if inner == "dataset_args" else None
        for name, value in values.items():
            read = _spelled(name, value)
            yield f"{key}.{inner}.{name}", name, read, place, LEFT_OUT if _left_out(read) else ""


def _subset(key: str, subset: Mapping[str, Any], place: Place) -> Iterator[tuple[str, str, Any, Place | None, str]]:
    for name, value in subset.items():
        why = NAME_OF_SUBSET if name == "name" else LEFT_OUT if _left_out(value) else ""
        yield f"{key}.{name}", name, value, place, why


def _left_out(value: Any) -> bool:
    return not value or (isinstance(value, str) and value.lower() == "false")


def _spelled(name: str, value: Any) -> Any:
    """Tables of arguments as sd-scripts spells them: numbers per block with commas, switches with a capital."""
    if isinstance(value, str) and value.lower() == "true":
        return True
    if not isinstance(value, Mapping):
        return value
    if name == "network_args":
        return {key: ",".join(map(str, inner)) if isinstance(inner, list) else inner for key, inner in value.items()}
    if name in ("optimizer_args", "lr_scheduler_args"):
        return [f"{key}={inner.capitalize() if inner in ('true', 'false') else inner}" for key, inner in value.items()]
    return value
