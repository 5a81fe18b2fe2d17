"""What became of a file's keys, as text and as a table for the documents."""

from __future__ import annotations

from lib_lora.kohya.importing import Imported

HEADS = {
    "not_supported": "Not supported: these would change the result, and are left out",
    "unknown": "Unknown",
    "used": "Used",
    "ignored": "Ignored on purpose",
}


def import_text(found: Imported) -> str:
    """One line per key, what needs attention first, and the settings that follow."""
    lines = []
    for name, head in HEADS.items():
        members = getattr(found, name)
        if members:
            lines.append(f"{head} ({len(members)}):")
            lines += [f"  {said.key} = {said.value!r}: {said.why}" for said in members]
    lines.append("Settings:")
    lines += [f"  {name} = {value!r}" for name, value in found.flat.items()]
    # a lone surrogate of a JSON file cannot be printed
    return "\n".join(lines).encode("utf-8", "backslashreplace").decode("utf-8")
