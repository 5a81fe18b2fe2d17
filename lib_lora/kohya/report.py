"""The report of an import: the verdict on every key, as text and for the form."""

from __future__ import annotations

from collections.abc import Iterator

from lib_lora.kohya.importing import Imported, Said

HEADS = {
    "not_supported": "Not supported and left out",
    "unknown": "Unknown and left out",
    "used": "Used",
    "ignored": "Ignored on purpose",
}
NEED_ATTENTION = {"not_supported", "unknown"}


def import_parts(found: Imported) -> Iterator[tuple[str, str, list[Said]]]:
    """Name, heading and keys of each part that is not empty; the most important first."""
    for name, head in HEADS.items():
        members = getattr(found, name)
        if members:
            yield name, head, members


def import_text(found: Imported) -> str:
    """One line per key, and the resulting settings."""
    parts = import_parts(found)
    lines = [line for _, head, of in parts for line in (f"{head}: {len(of)}", *(f"  {said.line()}" for said in of))]
    lines += ["Settings:", *(f"  {name} = {value!r}" for name, value in found.flat.items())]
    # a lone surrogate of a JSON file cannot be printed
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")
