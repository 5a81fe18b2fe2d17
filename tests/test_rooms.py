"""Every module has a test that names it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.test_walls import ROOMS, ROOT, imports, room_name

TESTS = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if path.name not in {"test_rooms.py", "test_walls.py"}]
WITHOUT_CODE = {"__init__", "layers"}


def named(path: Path) -> Iterator[str]:
    """What a file of tests imports; modules that it asks for by a text (to import or to run them) too."""
    yield from imports(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("lib_lora."):
            yield node.value


def test_every_room_is_named_by_a_test() -> None:
    """A room that only others are tested through is tested for what they ask of it alone."""
    found = {name.removeprefix("lib_lora.") for path in TESTS for name in named(path)}
    known = {name[:i] for name in found for i in [*(i for i, c in enumerate(name) if c == "."), len(name)]}
    rooms = {room_name(path) for path in ROOMS if path.stem not in WITHOUT_CODE}
    assert sorted(rooms - known) == []
    assert len(rooms) > 100
