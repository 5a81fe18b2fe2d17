"""The "Train LoRA" tab in a browser, in the words of a person who uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.e2e.server import SHOTS

if TYPE_CHECKING:
    from playwright.sync_api import Dialog, Locator, Page, WebSocket

LOAD_MS = 60_000
RUN_MS = 180_000


class Tab:
    """Drives one page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self._url = url
        self._events: set[WebSocket] = set()  # gradio's, each with a socket of its own while it lasts
        page.on("websocket", self._note_event)
        page.on("dialog", self.accept)  # such as before a job is removed

    def open(self) -> None:
        """Load the page and go to the tab."""
        self.page.goto(self._url, wait_until="domcontentloaded")
        self.enter()

    def enter(self) -> None:
        """Go to the tab of a page that is loading."""
        self.page.locator("#tabs > .tab-nav button", has_text="Train LoRA").click(timeout=LOAD_MS)
        self.page.locator("#train_lora_train").wait_for(timeout=LOAD_MS)
        self.page.wait_for_function("window.trainLora && trainLora.train && gradioApp().querySelector('#train_lora_report')")

    def fill(self, **values: Any) -> None:
        """Type into the fields of the form, or tick them; `bool` for tick boxes."""
        for name, value in values.items():
            field = self._field(name)
            self.show(name)
            if isinstance(value, bool):
                field.set_checked(value)
            else:
                field.fill(str(value))
                field.blur()

    def show(self, name: str) -> None:
        """Open the part of the form, and the group in it, that a field lies in."""
        option = self.page.locator(f"#train_lora_{name}")
        if option.is_visible():
            return
        group = self.page.locator("[id^=train_lora_group_]").filter(has=option)
        if not group.locator("> .label-wrap").is_visible():
            self.page.locator("#train_lora_advanced > .label-wrap").click()
        if not option.is_visible():
            group.locator("> .label-wrap").click()
        option.wait_for(timeout=LOAD_MS)

    def drop(self, files: list[Path]) -> None:
        """Give files to the Images room, and wait until all have arrived and been looked at."""
        self.choose_files(files)
        self.page.wait_for_function(
            """() => {
                const data = trainLora.images.data();
                return !trainLora.imagesArrivals.isArriving() && data && data.looked.total > 0 && data.looked.done === data.looked.total;
            }""",
            timeout=LOAD_MS,
        )

    def choose_files(self, files: list[Path]) -> None:
        """Give files to the Images room."""
        self.page.locator("#train_lora_images input[type=file]").first.set_input_files(files)

    def wait_for_report(self, text: str) -> str:
        """The report, once it holds `text`; white space made single."""
        report = self.page.locator("#train_lora_report.prose")
        report.filter(has_text=text).wait_for(timeout=LOAD_MS)
        return " ".join(report.inner_text().split())

    def train(self) -> None:
        """Press Train."""
        self.page.locator("#train_lora_train").click()

    def train_and_wait_for_job(self) -> str:
        """Press Train and return the new job's id, once the page shows that job."""
        before = self.job()
        self.train()
        self.page.wait_for_function(
            "before => { const job = gradioApp().querySelector('#train_lora_progress').dataset.job; return job && job !== before }",
            arg=before,
            timeout=LOAD_MS,
        )
        job = self.job()
        assert job is not None
        return job

    def refused(self) -> list[str]:
        """Press Train with input that cannot be trained on; the sentences that the page then shows.

        They stand under the buttons where the values are no legal values, and in the progress of the failed job otherwise.
        """
        message, progress = "#train_lora_message.prose", "#train_lora_progress"
        before = [self.page.locator(message).inner_text(), self.job()]
        self.train()
        self.page.wait_for_function(
            """([message, job]) => {
                const [told, shown] = ["#train_lora_message.prose", "#train_lora_progress"].map((id) => gradioApp().querySelector(id));
                const refused = told.querySelector("li") && told.innerText !== message;
                return refused || (shown.dataset.job !== (job || undefined) && shown.dataset.state === "failed");
            }""",
            arg=before,
            timeout=LOAD_MS,
        )
        place = progress if self.job() != before[1] else message
        return self.page.locator(f"{place} li").all_inner_texts()

    def wait_for_state(self, state: str) -> None:
        """Until the progress says `state`."""
        self.page.locator(f"#train_lora_progress[data-state={state}]").wait_for(timeout=RUN_MS)

    def wait_for_step(self, step: int) -> None:
        """Until at least `step` steps are shown."""
        self.page.wait_for_function(
            "step => (gradioApp().querySelector('#train_lora_progress progress') || {value: 0}).value >= step",
            arg=step,
            timeout=RUN_MS,
        )

    def job(self) -> str | None:
        """The id of the job that the page shows."""
        return self.page.locator("#train_lora_progress").get_attribute("data-job")

    def progress(self) -> str:
        """The words of the progress panel; white space made single."""
        return " ".join(self.page.locator("#train_lora_progress").inner_text().split())

    def curve_points(self) -> list[int]:
        """How many points each line of the loss curve has."""
        lines = self.page.locator("#train_lora_progress polyline").all()
        return [len((line.get_attribute("points") or "").split()) for line in lines]

    def row(self, name: str) -> Locator:
        """The row of a job in the list of jobs."""
        rows = self.page.locator("#train_lora_queue tr.train-lora-job")
        return rows.filter(has=self.page.get_by_text(name, exact=True))

    def shot(self, name: str) -> None:
        """Save what the browser shows to build/e2e."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png", full_page=True)

    def wait_until_quiet(self) -> None:
        """Until none of gradio's events was under way for a second."""
        quiet_ms = 0
        while quiet_ms < 1000:
            self.page.wait_for_timeout(100)
            quiet_ms = 0 if self._events else quiet_ms + 100

    def accept(self, box: Dialog) -> None:
        """Say yes to a question of the page."""
        box.accept()

    def _note_event(self, socket: WebSocket) -> None:
        self._events.add(socket)
        socket.on("close", lambda _: self._events.discard(socket))

    def value(self, name: str) -> str:
        """What a field of the form holds."""
        return self._field(name).input_value()

    def _field(self, name: str) -> Locator:
        box = self.page.locator(f"#train_lora_{name}")
        kinds = "input[type=number], textarea, input[type=text], input[type=checkbox]"
        return box.locator(kinds).first
