"""The run on the page, in a browser without a webui: presses, chart, samples and the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lib_lora.jobs.curve import Curve
from tests.test_page import BODY, JOB, ROOMS, WATCH, Host, browser, host

if TYPE_CHECKING:
    from playwright.sync_api import Page

__all__ = ["browser", "host"]
STYLE = (ROOMS[0].parent.parent / "style.css").read_text(encoding="utf-8")
RUN: dict[str, Any] = {
    **JOB, "state": "running", "steps_per_epoch": 10, "epochs": 10, "epoch": 1, "asked": [], "sampled": [[0, 2], [5, 2], [10, 2]],
    "prompts": ["a cat", "a dog"], "losses": [0.5, 0.25, 0.75, 0.125, 0.5, 0.25, 0.375, 0.25, 0.5, 0.25],
}  # fmt: skip
AFTER_A_PRESS = """id => {
    const button = document.querySelector(`#${id}`);
    button.click();
    return [button.textContent, button.getAttribute("aria-disabled"), button.getAttribute("aria-label")];
}"""
CLICKED = """() => {
    window.clicked = [];
    for (const button of document.querySelectorAll("#train_lora_buttons button, #train_lora_more_buttons button")) {
        button.addEventListener("click", () => window.clicked.push(button.id.replace("train_lora_", "")));
    }
}"""


def button(page: Page, name: str) -> Any:
    return page.locator(f"#train_lora_{name}")


def label(page: Page, name: str) -> str:
    return str(button(page, name).text_content())


@pytest.mark.parametrize(
    ("name", "word", "sign"),
    [
        ("pause", "Pausing", {"state": "paused"}),
        ("save_now", "Saving", {"asked": ["save"]}),
        ("sample_now", "Sampling", {"asked": ["sample"]}),
        ("keep", "Stopping", {"state": "stopping"}),
    ],
)
def test_a_press_shows_at_once_and_until_it_is_done(host: Host, name: str, word: str, sign: dict[str, Any]) -> None:
    """In the click itself, so before any answer; a status from before the press undoes nothing, and a second press does nothing."""
    host.tell(RUN)
    page = host.page
    page.evaluate(CLICKED)
    before = label(page, name)
    assert page.evaluate(AFTER_A_PRESS, f"train_lora_{name}") == [word, "true", f"{word}: cat"]
    host.tell(RUN)
    assert label(page, name) == word and page.evaluate(AFTER_A_PRESS, f"train_lora_{name}")[0] == word
    assert page.evaluate("window.clicked") == [name]
    host.tell({**RUN, **sign})
    assert label(page, name) == (before if name == "pause" else word)
    host.tell({**RUN, "state": "done"} if name == "keep" else RUN)
    assert label(page, name) == before


def test_what_another_page_asked_for_is_seen_here_too(host: Host) -> None:
    host.tell({**RUN, "asked": ["save"]})
    assert label(host.page, "save_now") == "Saving" and label(host.page, "sample_now") == "Sample now"
    host.tell({**RUN, "state": "paused"})
    assert label(host.page, "save_now") == "Save now" and button(host.page, "save_now").get_attribute("aria-disabled") is None
    assert "hidden" not in (button(host.page, "save_now").get_attribute("class") or "")


def test_stop_asks_and_discards_nothing_without_a_yes(host: Host) -> None:
    asked: list[str] = []
    answers = iter([False, True])
    host.page.on("dialog", lambda box: (asked.append(box.message), box.accept() if next(answers) else box.dismiss()))
    host.tell(RUN)
    host.page.evaluate(CLICKED)
    button(host.page, "stop").click()
    assert host.page.evaluate("window.clicked") == [] and label(host.page, "stop") == "Stop"
    assert "Stop cat and discard" in asked[0] and "Stop and keep" in asked[0]
    button(host.page, "stop").click()
    assert host.page.evaluate("window.clicked") == ["stop"] and label(host.page, "stop") == "Stopping"
    assert label(host.page, "keep") == "Stop and keep" and button(host.page, "keep").get_attribute("aria-disabled") == "true"


@pytest.mark.parametrize("state", [None, "done", "failed"])
def test_where_nothing_runs_the_stops_are_off_and_say_why(host: Host, state: str | None) -> None:
    if state:
        host.tell({**RUN, "state": state})
    host.page.evaluate(CLICKED)
    for name in ("stop", "keep"):
        assert button(host.page, name).get_attribute("aria-disabled") == "true"
        assert button(host.page, name).get_attribute("title") == "Nothing runs now."
        button(host.page, name).click(force=True)
        assert host.page.locator("#train_lora_announced").inner_text() == "Nothing runs now."
    assert host.page.evaluate("window.clicked") == []


def test_a_long_run_leaves_the_page_as_quick_as_a_short_one(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """100,000 steps: few points, a peak among them, few bytes for an update, and one that takes no longer than a moment."""
    losses = [0.1] * 100_000
    losses[54_321] = 7.5
    whole = Curve()
    for step, loss in enumerate(losses, 1):
        whole.add(step, loss, step / 2)
    monkeypatch.setattr(host, "curve", lambda: whole)
    sizes: list[int] = []
    host.page.on("response", lambda answer: sizes.append(len(answer.body())) if "status?" in answer.url else None)
    told = {**RUN, "losses": [], "step": 100_000, "total": 200_000}
    host.tell(told)
    points = (host.page.locator("polyline.train-lora-raw").get_attribute("points") or "").split()
    assert 100 < len(points) <= 600
    assert min(float(point.split(",")[1]) for point in points) == 8.0, "the peak is at the top"
    assert host.page.locator("#train_lora_progress svg text").first.text_content() == "7.500"
    host.page.evaluate(WATCH, "#train_lora_progress")
    took = host.page.evaluate("""async () => {
        const start = performance.now();
        for (let again = 0; again < 5; again += 1) await trainLora.status.poll();
        return (performance.now() - start) / 5;
    }""")
    assert took < 200 and host.page.evaluate("window.changed") == []
    assert max(sizes[-4:]) < 3000, sizes


def test_values_are_read_by_arrow_keys_and_pointer(host: Host) -> None:
    host.tell({**RUN, "held_out": [[5, 0.3125]]})
    svg, reading = host.page.locator("svg[role=slider]"), host.page.locator(".train-lora-run-chart .train-lora-hint")
    svg.focus()
    heard = []
    for key in ("Home", "ArrowRight", "ArrowRight", "End", "ArrowLeft"):
        host.page.keyboard.press(key)
        heard.append((svg.get_attribute("aria-valuenow"), svg.get_attribute("aria-valuetext")))
        assert reading.inner_text() == heard[-1][1]
    assert [step for step, _ in heard] == ["1", "2", "3", "10", "9"]
    assert heard[0][1] == "Step 1, Loss 0.500, Smoothed 0.500, 00:01" or "Step 1, Loss 0.500, Smoothed 0.500" in str(heard[0][1])
    host.tell({**RUN, "held_out": [[5, 0.3125]], "seconds": 7.0})
    assert svg.get_attribute("aria-valuenow") == "9", "the reading stays"
    box = svg.bounding_box() or {}
    across = (44 + 350 * 4 / 99) / 400  # step 5 of 100
    host.page.mouse.move(box["x"] + box["width"] * across, box["y"] + 20)
    assert "Step 5, Loss 0.500" in reading.inner_text() and "Validation 0.313" in reading.inner_text()
    assert (
        host.page.locator("circle.train-lora-held-out").count() == 1 and host.page.locator("line.train-lora-reading").count() == 1
    )
    host.page.keyboard.press("Escape")
    assert reading.inner_text().strip() == "" and host.page.locator("line.train-lora-reading").count() == 0


def test_rates_and_norms_are_offered_where_they_are_recorded(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.tell(RUN)
    kinds = host.page.locator("select[aria-label=Curve] option")
    assert kinds.all_inner_texts() == ["Loss"]
    recorded = Curve()
    for step in range(1, 11):
        recorded.add(step, 0.5, step / 2, (1e-4 / step, 5e-5), 2.0 * step)
    monkeypatch.setattr(host, "curve", lambda: recorded)
    host.tell({**RUN, "id": "other"})
    assert kinds.all_inner_texts() == ["Loss", "Learning rate", "Gradient norm"]
    svg = host.page.locator("svg[role=slider]")
    host.page.select_option("select[aria-label=Curve]", "norm")
    assert svg.get_attribute("aria-label") == "Gradient norm by step" and svg.locator("text").first.text_content() == "20.0"
    host.page.select_option("select[aria-label=Curve]", "rate")
    assert svg.locator("polyline.train-lora-other").count() == 1 and svg.locator("text").first.text_content() == "1.0e-4"
    svg.focus()
    host.page.keyboard.press("Home")
    assert "Learning rate 5.0e-5 – 1.0e-4" in (svg.get_attribute("aria-valuetext") or "")
    host.page.evaluate(WATCH, "#train_lora_progress")
    host.tell({**RUN, "id": "other", "seconds": 6.0})
    assert host.page.evaluate("window.changed") == [] and host.page.locator("select[aria-label=Curve]").input_value() == "rate"


def test_the_axis_is_steps_or_time(host: Host) -> None:
    """By time the steps of a slow half take more room."""
    slow = Curve()
    for step in range(1, 11):
        slow.add(step, step / 10, float(step if step <= 5 else 5 + 10 * (step - 5)))
    host.curve = lambda: slow  # type: ignore[method-assign]
    host.tell({**RUN, "total": 10, "eta_s": 0.0})
    line = host.page.locator("polyline.train-lora-raw")

    def places() -> list[float]:
        return [float(point.split(",")[0]) for point in (line.get_attribute("points") or "").split()]

    assert places()[4] == pytest.approx(44 + 350 * 4 / 9, abs=0.1)
    host.page.select_option("select[aria-label=Axis]", "time")
    assert places()[4] == pytest.approx(44 + 350 * 5 / 55, abs=0.1) and places()[9] == pytest.approx(394, abs=0.1)
    assert host.page.locator("#train_lora_progress svg text").nth(3).text_content() == "00:55"


def test_samples_are_large_have_their_epoch_and_those_before_the_first_step_stay(host: Host) -> None:
    steps = [[5 * count, 2] for count in range(12)]
    host.tell({**RUN, "sampled": steps})
    host.page.add_style_tag(content=STYLE)
    heads = host.page.locator(".train-lora-samples tr").first.locator("th").all_inner_texts()
    assert heads == [
        "",
        "Before",
        "Step 35, epoch 3.5",
        "Step 40, epoch 4",
        "Step 45, epoch 4.5",
        "Step 50, epoch 5",
        "Step 55, epoch 5.5",
    ]
    widths = host.page.evaluate(
        "[...document.querySelectorAll('.train-lora-samples img')].map((img) => img.getBoundingClientRect().width)"
    )
    assert len(widths) == 12 and min(widths) >= 160


def test_a_sample_is_enlarged_and_arrow_keys_go_on(host: Host) -> None:
    host.tell(RUN)
    host.page.locator(".train-lora-samples img[alt='a cat, step 5']").focus()
    host.page.keyboard.press("Enter")
    dialog = host.page.locator("dialog.train-lora-large")
    shown = []
    for key in ("", "ArrowLeft", "ArrowLeft", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown"):
        if key:
            host.page.keyboard.press(key)
        shown.append((dialog.locator("img").get_attribute("src") or "").removeprefix("train-lora/sample/run/"))
    assert shown == ["5/0?whole", "0/0?whole", "0/0?whole", "0/1?whole", "5/1?whole", "10/1?whole", "10/1?whole", "10/1?whole"]
    assert "Step 10, epoch 1 a dog" in dialog.locator("p").inner_text()
    later = dialog.locator("button", has_text="Later step")
    assert later.get_attribute("aria-disabled") == "true" and later.get_attribute("title") == "There is no further sample."
    host.tell({**RUN, "sampled": [*RUN["sampled"], [15, 2]]})
    assert later.get_attribute("aria-disabled") is None, "a new one came"
    host.page.keyboard.press("Escape")
    assert not dialog.is_visible() and host.page.evaluate("document.activeElement.alt") == "a cat, step 5"


@pytest.mark.parametrize(("state", "title", "sign"), [("done", "✓ cat is done", "✓"), ("failed", "✗ cat has failed", "✗")])
def test_the_end_rings_until_the_page_is_touched(host: Host, state: str, title: str, sign: str) -> None:
    page = host.page
    page.evaluate("""() => {
        document.title = "the webui";
        document.body.insertAdjacentHTML("beforeend", "<div id='tabs'><div class='tab-nav'><button>Train LoRA </button></div></div>");
    }""")
    tab = page.locator("#tabs button")
    host.tell({**RUN, "id": "old", "state": state})
    assert page.title() == "the webui", "it ended before the page was there"
    host.tell(RUN)
    host.tell({**RUN, "state": state})
    assert (page.title(), tab.inner_text().strip()) == (title, f"Train LoRA {sign}")
    host.tell({**RUN, "state": state})
    page.keyboard.press("Shift")
    assert (page.title(), tab.inner_text().strip()) == ("the webui", "Train LoRA")


def test_a_sound_is_played_only_if_it_was_chosen(host: Host) -> None:
    page = host.page
    page.evaluate("""() => {
        window.played = 0;
        window.AudioContext = class {
            constructor() { window.played += 1; this.destination = {}; this.currentTime = 0; }
            createGain() { return {gain: {}, connect() {}}; }
            createOscillator() { return {frequency: {}, connect() {}, start() {}, stop() {}}; }
            close() {}
        };
    }""")
    host.tell(RUN)
    host.tell({**RUN, "state": "done"})
    assert page.evaluate("window.played") == 0
    host.tell({**RUN, "id": "next"})
    page.locator(".train-lora-sound input").check()
    host.tell({**RUN, "id": "next", "state": "done"})
    assert page.evaluate("window.played") == 1


def test_the_stub_has_the_buttons_of_the_tab() -> None:
    """Those that this file presses are those of the tab."""
    tab = (ROOMS[0].parent.parent / "lib_lora/ui/tab.py").read_text(encoding="utf-8")
    for name in ("stop", "keep", "pause", "go_on", "save_now", "sample_now"):
        assert f"train_lora_{name}'" in BODY and f'"train_lora_{name}"' in tab
