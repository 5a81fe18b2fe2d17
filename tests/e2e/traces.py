"""What must not change in the webui's own folder and environment."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass

from tests.e2e.client import files_in
from tests.e2e.server import ROOT, Webui

# what git does not watch there, and a person would miss
_OWN_FOLDERS = ("models", "extensions", "embeddings", "outputs", "cache")
_OWN_FILES = ("config.json", "ui-config.json", "styles.csv", "params.txt", "user.css")


@dataclass(frozen=True)
class Traces:
    """`git status`, everything a person owns in the folder, and the packages of the environment."""

    git_status: str
    own: dict[str, int]
    packages: str


def look(webui: Webui) -> Traces:
    """The state of the webui as it lies on disk."""
    status = _run(["git", "-C", str(webui.folder), "status", "--porcelain"])
    own = {f"{name}/{path}": time for name in _OWN_FOLDERS for path, time in files_in(webui.folder / name).items()}
    own |= {name: (webui.folder / name).stat().st_mtime_ns for name in _OWN_FILES if (webui.folder / name).exists()}
    return Traces(status, own, _run([str(webui.python), "-m", "pip", "freeze", "--all"]))


def run_installer(webui: Webui) -> str:
    """Run our install.py as the webui does at every start; what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(webui.folder)}
    return _run([str(webui.python), str(ROOT / "install.py")], cwd=str(webui.folder), env=environment)


def _run(command: list[str], **options: object) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command} ends with {done.returncode}: {done.stderr}"
    return str(done.stdout)
