"""The browser of the tests. `python -m tests.e2e.browser` says in a sentence if there is none, and exits with 1 then."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")


def chromium() -> str | None:
    """The browser that is installed; None for playwright's own."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def missing() -> str:
    """A sentence if there is no browser, or nothing that drives one; else ""."""
    if importlib.util.find_spec("playwright") is None:
        return "The page is not tested in a browser: playwright is not installed; make setup installs it."
    if chromium() or _own_is_there():
        return ""
    return (
        "The page is not tested in a browser: there is no Chromium; install it, name it with CHROMIUM=path, or run "
        "python -m playwright install chromium."
    )


def _own_is_there() -> bool:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return Path(playwright.chromium.executable_path).is_file()


@contextmanager
def launch() -> Iterator[Browser]:
    """Chromium, until the end of the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


if __name__ == "__main__":
    sys.exit(missing() or None)
