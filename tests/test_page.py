"""The page's scripts in a browser, without a webui: what stays when something new comes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lib_lora.jobs.curve import Curve
from tests.e2e.browser import launch, missing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

ROOMS = sorted((Path(__file__).parent.parent / "javascript").glob("*.js"))
URL = "http://page.test/"
WEBUI = """
const loaded = [];
const gradioApp = () => document, onUiLoaded = (callback) => loaded.push(callback);
document.addEventListener("DOMContentLoaded", () => loaded.forEach((callback) => callback()));
window.pressed = [];
document.addEventListener("click", async ({target}) => {
    const name = target.id.replace("train_lora_queue_", "");
    if (name !== target.id) window.pressed.push([name, ...await trainLora.queue.withKey()]);
});
"""
BODY = """
<div id='train_lora_form' class='train-lora-watched'><section id='train_lora_images'></section></div>
<section id='train_lora_advice'></section>
<div id='train_lora_buttons'><button id='train_lora_train'>Train</button><button id='train_lora_stop'>Stop</button>
<button id='train_lora_keep'>Stop and keep</button></div>
<div id='train_lora_more_buttons'><button id='train_lora_pause'>Pause</button><button id='train_lora_go_on'>Unpause</button>
<button id='train_lora_save_now'>Save now</button><button id='train_lora_sample_now'>Sample now</button></div>
<div id='train_lora_report'></div><div id='train_lora_message'></div>
<div id='train_lora_progress'></div><div id='train_lora_announced' role='status'></div>
<div id='train_lora_queue'></div>
<button id='train_lora_check'></button><button id='train_lora_queue_remove'></button><button id='train_lora_queue_up'></button>
"""
JOB: dict[str, Any] = {
    "id": "run", "name": "cat", "trigger": "", "state": "running", "phase": "", "step": 10, "total": 100, "first_step": 0,
    "losses": [0.5, 0.25], "held_out": [[5, 0.125]], "between": ["cat-1"], "prompts": ["a cat"], "sampled": [[5, 1]], "best": None,
    "steps_per_s": 2.0, "eta_s": 45.0, "seconds": 5.0, "memory_gb": 1.5, "problems": [], "notes": ["first"], "choices": ["chosen"],
    "left": [], "saved": None,
}  # fmt: skip
ROW: dict[str, Any] = {
    "state": "waiting", "when": 1.0, "step": 0, "total": 0, "loss": None, "checkpoint": "", "problems": [], "saved": None,
    "can_resume": False, "has_state": False, "elsewhere": False,
}  # fmt: skip
KEPT = {
    "size": "1 GB",
    "limit": 10,
    "free": "1 GB",
    "asked": "0 B",
    "can_free": True,
    "can_ask": False,
    "over": False,
    "names": [],
}
DETAILS = {"curve": [3.0, 2.0, 1.0], "notes": [], "between": [], "first_step": 0, "newest_state": None}
WATCH = """selector => {
    const panel = document.querySelector(selector);
    window.before = [...panel.querySelectorAll("*")];
    window.changed = [];
    window.watcher = new MutationObserver((records) => records.forEach((record) => {
        for (const node of [...record.addedNodes, ...record.removedNodes]) if (node.nodeType === 1) window.changed.push(node.outerHTML);
    }));
    window.watcher.observe(panel, {childList: true, subtree: true});
}"""


class Host:
    """What the page is told, and the page."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.job: dict[str, Any] | None = None
        self.rows: list[dict[str, Any]] = []
        self.revision = 0
        page.route(f"{URL}**", self._answer)

    def open(self, rooms: list[Path]) -> None:
        scripts = "".join(f"<script src='javascript/{room.name}'></script>" for room in rooms)
        self._html = f"<!doctype html><body>{BODY}<script>{WEBUI}</script>{scripts}"
        self.page.goto(URL)
        self.page.wait_for_selector("#train_lora_queue[data-revision]")

    def tell(self, job: dict[str, Any] | None = None, names: str | None = None) -> None:
        """A new status, and a new list of jobs: one letter a name, in the order in which they wait."""
        self.job = job or self.job
        if names is not None:
            self.rows = [{**ROW, "id": f"id-{name}", "name": name, "place": place} for place, name in enumerate(names, 1)]
            self.revision += 1
        self.page.evaluate("trainLora.status.poll()")
        self.page.wait_for_selector(f"#train_lora_queue[data-revision='{self.revision}']")

    def curve(self) -> Curve:
        """The job's losses as the server tells them."""
        curve = Curve()
        for step, loss in enumerate(self.job["losses"] if self.job else [], self.job["first_step"] + 1 if self.job else 1):
            curve.add(step, loss, step / 2)
        return curve

    def button(self, job: str, text: str) -> Any:
        return self.page.locator(f"tr[data-job=id-{job}] button", has_text=re.compile(f"^{text}$"))

    def focused(self) -> str | None:
        return str(self.page.evaluate("document.activeElement.getAttribute('aria-label')"))

    def _answer(self, route: Route) -> None:
        path = route.request.url.removeprefix(URL).split("?")[0]
        if path == "":
            route.fulfill(content_type="text/html", body=self._html)
        elif path.startswith("javascript/"):
            route.fulfill(path=ROOMS[0].parent / Path(path).name)
        elif path == "train-lora/status":
            stride, place = map(int, re.findall("=([0-9]+)", route.request.url))
            job = self.job and {**self.job, "curve": self.curve().since(stride, place)}
            route.fulfill(json={"job": job, "queue": self.revision})
        elif path == "train-lora/queue":
            route.fulfill(json={"revision": self.revision, "held": False, "trouble": "", "jobs": self.rows, "kept": KEPT})
        elif path.startswith("train-lora/queue/"):
            found = next((row for row in self.rows if row["id"] == path.rsplit("/", 1)[1]), None)
            route.fulfill(json={**found, **DETAILS, "settings": [["Steps", "steps", "7"]]} if found else None)
        elif path == "lora-train/v1/datasets":
            route.fulfill(json={"datasets": [], "folders": True})
        elif path == "train-lora/key":
            route.fulfill(json={"key": "the key"})
        else:
            route.fulfill(status=404)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if why := missing():
        pytest.skip(why)
    with launch() as running:
        yield running


@pytest.fixture
def host(browser: Browser) -> Iterator[Host]:
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1366, "height": 768})
    page.on("pageerror", lambda error: errors.append(str(error)))
    made = Host(page)
    made.open(ROOMS)
    yield made
    page.close()
    assert errors == []


@pytest.mark.parametrize("order", [1, -1])
def test_rooms_load_in_any_order(host: Host, order: int) -> None:
    host.job, host.rows = JOB, [{**ROW, "id": "a", "name": "a", "place": 1}]
    host.open(ROOMS[::order])
    host.page.locator("#train_lora_queue tr[data-job=a]").wait_for()
    assert "cat" in host.page.locator("#train_lora_progress").inner_text()
    named = {name for room in ROOMS for name in re.findall(r"^window\.trainLora\.(\w+) = ", room.read_text(), re.MULTILINE)}
    assert len(named) == len(ROOMS) and set(host.page.evaluate("Object.keys(window.trainLora)")) == named


def test_a_progress_update_replaces_no_node(host: Host) -> None:
    """Numbers, bar, curve and sentences: texts are set, and the samples that are there stay."""
    host.tell(JOB)
    host.page.evaluate(WATCH, "#train_lora_progress")
    host.tell({**JOB, "step": 11, "losses": [0.5, 0.25, 0.125], "seconds": 6.0, "eta_s": 44.0, "held_out": [[5, 0.0625]]})
    shown = host.page.locator("#train_lora_progress").inner_text()
    assert "11 / 100" in shown and "validation loss 0.0625" in shown and "00:06" in shown
    points = host.page.locator("#train_lora_progress polyline").first.get_attribute("points")
    assert len((points or "").split()) == 3
    assert host.page.evaluate("window.changed") == []
    host.tell({**JOB, "notes": ["first", "second"], "sampled": [[5, 1], [10, 1]]})
    assert host.page.evaluate("window.before.filter((node) => !node.isConnected).length") == 0
    assert [re.sub("<(li|t[hd]).*", r"\1", html) for html in host.page.evaluate("window.changed")] == ["li", "th", "td"]


def test_the_queue_keeps_focus_selection_and_nodes(host: Host) -> None:
    """A new revision with another order, another job and one less; the button that was pressed with a key still has the focus."""
    host.tell(names="abcd")
    host.button("c", "Details").click()
    host.page.locator(".train-lora-details", has_text="Steps").wait_for()
    host.button("c", "Up").focus()
    host.page.evaluate("getSelection().selectAllChildren(document.querySelector('.train-lora-details .train-lora-report td'))")
    host.page.evaluate(WATCH, "tr[data-job=id-c]")
    host.page.keyboard.press("Enter")
    host.page.wait_for_function("window.pressed.length === 1")
    assert host.page.evaluate("window.pressed") == [["up", "the key", "id-c"]]
    for names in ("acbd", "acdeb", "eacb"):
        host.tell(names=names)
        assert host.focused() == "Up: c"
        rows = host.page.locator("tr.train-lora-job td:first-child").all_inner_texts()
        assert "".join(rows) == names
    assert host.page.evaluate("getSelection().toString()").strip() == "7"
    assert host.page.evaluate("window.changed") == []


def test_where_the_focused_button_goes_the_next_has_the_focus(host: Host) -> None:
    host.tell(names="abc")
    host.button("b", "Up").focus()
    host.tell(names="bac")
    assert host.focused() == "Down: b"
    host.button("a", "Remove").focus()
    host.tell(names="bc")
    assert host.focused() == "Up: c"


def test_a_change_while_a_report_is_out_is_remembered(host: Host) -> None:
    """Gradio writes its own signs into the report meanwhile; a click then would be dropped."""
    host.page.evaluate("""() => {
        window.asked = 0;
        document.querySelector("#train_lora_check").addEventListener("click", () => {
            window.asked += 1;
            trainLora.report.withKey("");
        });
    }""")
    write = "text => document.querySelector('#train_lora_report').innerHTML = text"
    host.page.evaluate("trainLora.report.filled()")
    host.page.wait_for_function("window.asked === 1")
    host.page.evaluate(write, "processing | 0.3s")
    host.page.evaluate("trainLora.report.filled()")
    host.page.wait_for_timeout(600)
    assert host.page.evaluate("window.asked") == 1
    host.page.evaluate(write, "the plan<i hidden data-serial='1' data-settings='{}'></i>")
    host.page.wait_for_function("window.asked === 2")
    host.page.evaluate("trainLora.report.filled()")
    host.page.wait_for_timeout(600)
    host.page.evaluate(write, "There is no such dataset.<i hidden data-serial='2'></i>")  # refused
    host.page.wait_for_function("window.asked === 3")


def test_a_report_is_asked_for_until_gradio_takes_the_press(host: Host) -> None:
    """While gradio still makes the page, it ignores presses."""
    host.page.evaluate("""() => {
        window.asked = 0;
        document.querySelector("#train_lora_check").addEventListener("click", () => {
            window.asked += 1;
            if (window.asked === 3) trainLora.report.withKey("");
        });
        trainLora.report.filled();
    }""")
    host.page.wait_for_function("window.asked === 3")
    host.page.wait_for_timeout(1200)
    assert host.page.evaluate("window.asked") == 3


def test_remove_asks(host: Host) -> None:
    host.tell(names="ab")
    asked: list[str] = []
    answers = iter([False, True])
    host.page.on("dialog", lambda box: (asked.append(box.message), box.accept() if next(answers) else box.dismiss()))
    host.button("b", "Remove").click()
    host.page.wait_for_timeout(100)
    assert host.page.evaluate("window.pressed") == [] and "Remove b from the list?" in asked[0]
    host.button("b", "Remove").click()
    host.page.wait_for_function("window.pressed.length === 1")
    assert host.page.evaluate("window.pressed") == [["remove", "the key", "id-b"]]


def test_states_and_ends_are_announced(host: Host) -> None:
    """Not each step: how a run begins and ends, and each quarter. Nothing is said of a job that ended before the page was opened."""
    host.tell({**JOB, "state": "done"})
    said = host.page.locator("#train_lora_announced[role=status]")
    assert said.inner_text() == ""
    heard = []
    run = {**JOB, "id": "next"}
    for change in ({"step": 1}, {"step": 30}, {"step": 31}, {"state": "paused", "step": 31},
                   {"state": "failed", "problems": ["It broke."], "phase": "nothing was saved"}):  # fmt: skip
        host.tell({**run, **change})
        heard.append(said.inner_text())
    assert heard == ["cat: Running", "cat: Running, 25 %", "cat: Running, 25 %", "cat: Paused, 25 %",
                     "cat: Failed. It broke. nothing was saved"]  # fmt: skip


def test_buttons_name_their_job(host: Host) -> None:
    host.tell({**JOB, "state": "done", "saved": "cat", "best": {"loss": 0.5, "step": 5}}, names="ab")
    named = host.page.locator("#train_lora_queue tr button, #train_lora_progress button").all()
    labels = [(button.get_attribute("aria-label") or "", button.inner_text()) for button in named]
    assert len(labels) == 10 and all(re.fullmatch(f"{text}: (a|b|cat)", label) for label, text in labels)
    host.tell(JOB)
    assert host.page.locator("#train_lora_stop").get_attribute("aria-label") == "Stop: cat"
    assert host.page.locator("#train_lora_progress progress").get_attribute("aria-label") == "Steps of cat"


def test_a_missing_browser_is_one_sentence_that_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.e2e.browser.chromium", lambda: "/usr/bin/chromium")
    monkeypatch.setattr("tests.e2e.browser._own_is_there", lambda: False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert missing() == ""
    monkeypatch.setattr("tests.e2e.browser.chromium", lambda: None)
    assert missing().count(". ") == 0 and "playwright install chromium" in missing()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "playwright is not installed" in missing()


def test_texts_are_set_as_texts() -> None:
    sinks = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b|new Function")
    assert [room.name for room in ROOMS if sinks.search(room.read_text())] == []


def test_the_lock_names_no_registry() -> None:
    lock = json.loads((ROOMS[0].parent.parent / "package-lock.json").read_text())
    assert [name for name, package in lock["packages"].items() if "resolved" in package] == []


def test_a_status_before_the_tab_is_there_is_no_error(host: Host) -> None:
    """The webui builds its page in parts; the fixture finds errors of scripts."""
    host.page.evaluate("for (const id of ['progress', 'announced']) document.querySelector(`#train_lora_${id}`).remove()")
    host.tell(JOB, names="a")
    assert host.page.locator("#train_lora_queue tr[data-job=id-a]").count() == 1
