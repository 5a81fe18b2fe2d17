"""The report of an import: the verdict on every key, as text and for the form."""

from __future__ import annotations

from collections.abc import Iterator

from lib_lora.kohya.importing import Imported

HEADS = {
    "not_supported": "Not supported and left out",
    "unknown": "Unknown and left out",
    "used": "Used",
    "ignored": "Ignored on purpose",
}
NEED_ATTENTION = {"not_supported", "unknown"}


def import_parts(found: Imported) -> Iterator[tuple[str, str, list[str]]]:
    """Name, heading with the number of keys, and a line per key of each part that is not empty; the most important first."""
    for name, head in HEADS.items():
        members = getattr(found, name)
        if members:
            yield name, f"{head}: {len(members)}", [f"{said.key} = {said.value!r}: {said.why}" for said in members]


def import_text(found: Imported) -> str:
    """One line per key, and the resulting settings."""
    lines = [line for _, head, members in import_parts(found) for line in (head, *(f"  {member}" for member in members))]
    lines += ["Settings:", *(f"  {name} = {value!r}" for name, value in found.flat.items())]
    # a lone surrogate of a JSON file cannot be printed
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")
