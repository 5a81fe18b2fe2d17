"""Who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_lora.layers import LAYERS

ROOT = Path(__file__).parent.parent
ROOMS = sorted((ROOT / "lib_lora").rglob("*.py"))
LEVEL = {room: level for level, layer in enumerate(LAYERS) for room in layer}


def room_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "lib_lora").with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "lib_lora":
            found |= {room for room in LEVEL if parts[1 : 1 + len(room.split("."))] == room.split(".")}
    return found


@pytest.mark.parametrize("path", ROOMS, ids=room_name)
def test_imports_go_down(path: Path) -> None:
    name = room_name(path)
    if name.endswith("__init__") or name == "layers":
        assert rooms_imported(path) == set()
        return
    assert name in LEVEL, f"{name} has no place in lib_lora.layers"
    assert [other for other in rooms_imported(path) if LEVEL[other] <= LEVEL[name]] == []


@pytest.mark.parametrize(("package", "prefixes"), [("modules", ("webui",)), ("gradio", ("tab", "form", "ui"))])
def test_walls(package: str, prefixes: tuple[str, ...]) -> None:
    outside = [room_name(path) for path in ROOMS if not path.name.startswith(prefixes)
               and any(name.split(".")[0] == package for name in imports(path))]  # fmt: skip
    assert outside == []
    assert any(name.split(".")[0] == package for path in ROOMS for name in imports(path))


def test_every_layer_entry_exists() -> None:
    assert set(LEVEL) == {room_name(path) for path in ROOMS if path.stem not in {"__init__", "layers"}}


def test_train_is_short() -> None:
    assert len((ROOT / "lib_lora" / "train.py").read_text().splitlines()) < 200


@pytest.mark.case(61)
def test_install_imports_nothing() -> None:
    assert list(imports(ROOT / "install.py")) == []
    assert set(imports(ROOT / "scripts" / "train_lora.py")) == {
        "lib_lora.hosts.webui_hooks.register",
        "lib_lora.hosts.webui_missing.tell",
    }


RUNS_WHAT_IT_READS = {
    "torch.load", "pickle", "marshal", "shelve", "dill", "joblib", "np.load", "numpy.load", "yaml.load", "yaml.unsafe_load",
    "subprocess", "os.system", "os.popen", "eval", "exec", "compile", "zipfile", "tarfile", "shutil.unpack_archive",
    "ImageCms", "ImageMath", "urllib.request", "requests", "httpx",
}  # fmt: skip


@pytest.mark.parametrize("path", [*ROOMS, ROOT / "scripts" / "train_lora.py", ROOT / "install.py"], ids=str)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    """No pickle, no archive, no other program, no network, and none of Pillow's rooms with known holes."""
    used = {part for name in imports(path) for part in (name, name.split(".")[0], name.split(".")[-1])}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            used.add(node.func.id)
    # pictures are decoded in a process of ours
    assert used & RUNS_WHAT_IT_READS == ({"subprocess"} if path.name == "decoder_process.py" else set())
