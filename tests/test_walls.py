"""Which module may import which."""

from __future__ import annotations

import ast
import functools
import graphlib
from pathlib import Path

import pytest

from lib_lora.layers import LAYERS

ROOT = Path(__file__).parent.parent
ROOMS = sorted((ROOT / "lib_lora").rglob("*.py"))
LEVEL = {unit: level for level, layer in enumerate(LAYERS) for unit in layer}
MOST_FOLDERS = 20


def room_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT / "lib_lora").with_suffix("").parts)


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """What a file imports, within functions and for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def below(path: Path) -> set[str]:
    """What a file imports of this package, without its first word."""
    return {name.removeprefix("lib_lora.") for name in imports(path) if name.startswith("lib_lora.")}


def is_folder(unit: str) -> bool:
    return (ROOT / "lib_lora" / unit).is_dir()


def picture() -> str:
    """The layers, for ARCHITECTURE.md: a line each, folders with a slash."""
    return "\n".join("   ".join(f"{unit}/" if is_folder(unit) else f"{unit}.py" for unit in layer) for layer in LAYERS)


@pytest.mark.parametrize("path", ROOMS, ids=room_name)
def test_imports_go_down(path: Path) -> None:
    own = room_name(path).partition(".")[0]
    units = {name.partition(".")[0] for name in below(path)} - {own, "__version__"}
    if own in ("__init__", "layers") or path.stem == "__init__":
        assert below(path) == set()
        return
    assert own in LEVEL, f"{own} has no place in lib_lora.layers"
    assert units <= LEVEL.keys() and [unit for unit in units if LEVEL[unit] <= LEVEL[own]] == []


def test_no_room_needs_itself() -> None:
    """Not by other rooms of its folder either."""
    names = {room_name(path): path for path in ROOMS}
    said = {name: below(path) for name, path in names.items()}  # read once: there are many rooms
    graph = {name: {room for room in names for text in said[name] if text == room or text.startswith(f"{room}.")} - {name}
             for name in names}  # fmt: skip
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(names)


def test_layers_list_every_folder_and_top_level_room() -> None:
    assert set(LEVEL) == {room_name(path).partition(".")[0] for path in ROOMS} - {"__init__", "layers"}
    assert sum(map(len, LAYERS)) == len(LEVEL) and sum(map(is_folder, LEVEL)) <= MOST_FOLDERS
    assert f"```text\n{picture()}\n```" in (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("package", "prefixes"), [("modules", ("webui",)), ("gradio", ("tab", "form", "ui"))])
def test_walls(package: str, prefixes: tuple[str, ...]) -> None:
    outside = [room_name(path) for path in ROOMS if not path.name.startswith(prefixes)
               and any(name.split(".")[0] == package for name in imports(path))]  # fmt: skip
    assert outside == []
    assert any(name.split(".")[0] == package for path in ROOMS for name in imports(path))


def test_train_is_short() -> None:
    assert len((ROOT / "lib_lora" / "train.py").read_text().splitlines()) < 200


@pytest.mark.case(61)
def test_install_imports_nothing() -> None:
    assert imports(ROOT / "install.py") == frozenset()
    assert imports(ROOT / "scripts" / "train_lora.py") == {
        "lib_lora.hosts.webui_hooks.register",
        "lib_lora.hosts.webui_missing.tell",
    }


RUNS_WHAT_IT_READS = {
    "torch.load", "pickle", "marshal", "shelve", "dill", "joblib", "np.load", "numpy.load", "yaml.load", "yaml.unsafe_load",
    "subprocess", "os.system", "os.popen", "eval", "exec", "compile", "zipfile", "tarfile", "shutil.unpack_archive",
    "ImageCms", "ImageMath", "urllib.request", "requests", "httpx", "http.client", "socket", "ssl",
}  # fmt: skip


READS_THEM_SAFELY = {
    "data.decoder_process": {"subprocess"},  # pictures are decoded in a process of ours
    # a captioner at the user's address is asked, and what it says is text
    "datasets.captioners.openai_compatible": {"http.client", "socket", "ssl"},
    "datasets.zip_listing": {"zipfile"}, "datasets.zips": {"zipfile"}, "datasets.zip_export": {"zipfile"},
}  # fmt: skip


@pytest.mark.parametrize("path", [*ROOMS, ROOT / "scripts" / "train_lora.py", ROOT / "install.py"], ids=str)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    """No pickle, no other program, no network, and none of Pillow's rooms with known holes; archives are read a file at a time."""
    used = {part for name in imports(path) for part in (name, name.split(".")[0], name.split(".")[-1])}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            used.add(f"{node.value.id}.{node.attr}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            used.add(node.func.id)
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"extractall", "extract"}
    assert used & RUNS_WHAT_IT_READS == READS_THEM_SAFELY.get(room_name(path) if path in ROOMS else "", set())
