"""`webui_names.json` holds the names that the webui adapter uses; the doubles in other tests are made of it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server import ROOT, Server

pytestmark = pytest.mark.e2e

NAMES = Path(__file__).parent / "webui_names.json"
ADAPTER = sorted((ROOT / "lib_lora" / "hosts").glob("webui_*.py"))


def test_names_and_signatures_are_the_webuis(server: Server) -> None:
    """Asked inside the real webui."""
    assert server.post("/e2e/names", json.loads(NAMES.read_text())) == []


def test_wrong_names_are_found(server: Server) -> None:
    """The check above can fail."""
    wrong = {"modules.sd_models": {"reload_model_weights": ["model"], "reload_all": None, "checkpoints_list": []}}
    assert len(server.post("/e2e/names", wrong)) == 3


def test_list_is_complete() -> None:
    """Every name that the adapter takes from `modules` is listed."""
    assert ADAPTER
    listed = {f"{module}.{name}" for module, names in json.loads(NAMES.read_text()).items() for name in names}
    used = {name for room in ADAPTER for name in _names_used(ast.parse(room.read_text()))}
    assert len(used) > 15
    assert sorted(name for name in used if not any(entry == name or entry.startswith(name + ".") for entry in listed)) == []


def _names_used(tree: ast.Module) -> Iterator[str]:
    """`modules.shared.sd_model` for `shared.sd_model` where the room says `from modules import shared`."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "modules"
        for alias in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in imported:
            yield f"modules.{node.value.id}.{node.attr}"
