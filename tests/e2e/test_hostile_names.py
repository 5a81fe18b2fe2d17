"""Names of a LoRA that would lead elsewhere, typed into the tab and sent to its events: one sentence, and nothing is left."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.e2e import client
from tests.e2e.events import Events
from tests.e2e.server import Server
from tests.e2e.tab import Tab
from tests.faults.test_names import HOSTILE

pytestmark = [pytest.mark.e2e, pytest.mark.case(48)]

TYPED = ("../../escaped", "/tmp/escaped", "C:\\escaped", "a/b", "{x}", "con.txt", "Addams", "x" * 300)


def written(server: Server) -> dict[str, int]:
    """Every file beside, in and below the webui's data folder, but its log."""
    found = client.files_in(server.data.parent)
    return {name: changed for name, changed in found.items() if not name.endswith(".log") and "order.json" not in name}


def assert_nothing_is_left(server: Server, before: dict[str, int], name: str) -> None:
    """The job's own page goes when its end has been told."""
    deadline, found = time.monotonic() + 10, None
    while found != before:
        assert time.monotonic() < deadline, (name, found)
        time.sleep(0.1)
        with suppress(FileNotFoundError):  # it goes just now
            found = written(server)


def test_sent_to_the_event(server: Server, photos: Path, figure: Callable[[str], None]) -> None:
    """Each hostile name, sent to the event of Train: one sentence on the name, and not a file is left anywhere."""
    events, before = Events(server.url), written(server)
    for name in HOSTILE:
        answer = str(events.press("train_lora_train", **client.SMALL_RUN, data=str(photos), name=name)["data"][0])
        begun = re.search("data-job='([0-9a-f]+)'", answer)
        told = client.wait_for_end(server, begun[1])["problems"] if begun else re.findall("<li>(.*?)</li>", answer, re.DOTALL)
        assert len(told) == 1 and told[0].startswith("Name (name)"), (name, answer, told)
        assert_nothing_is_left(server, before, name)
    assert not [path for path in ("/etc/escaped", "/tmp/escaped") if list(Path(path).parent.glob("escaped*"))]
    figure(f"{len(HOSTILE)} names")


def test_typed_into_the_tab(tab: Tab, server: Server, photos: Path) -> None:
    """Typed by a person, and Train pressed: one sentence, and not a file is left anywhere."""
    tab.fill(data=photos, **client.SMALL_RUN)
    before = written(server)
    for name in TYPED:
        tab.fill(name=name)
        told = tab.refused()
        assert len(told) == 1 and told[0].startswith("Name (name)"), (name, told)
        assert_nothing_is_left(server, before, name)
