"""Settings for one's images on the page: chosen by a button, with reasons, around what was typed; and buttons that mend."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("gradio")
pytest.importorskip("playwright")

from tests.test_images_room import Room, browser, filled, room, server  # noqa: E402, F401


def value(room: Room, option: str) -> str:  # noqa: F811
    return room.page.locator(f"#train_lora_{option} :is(input, textarea)").first.input_value()


def wait_for(room: Room, option: str, wanted: str) -> None:  # noqa: F811
    room.page.wait_for_function(
        "([option, wanted]) => gradioApp().querySelector(`#train_lora_${option} :is(input, textarea)`).value === wanted",
        arg=[option, wanted],
    )


def type_in(room: Room, option: str, text: str) -> None:  # noqa: F811
    field = room.page.locator(f"#train_lora_{option} :is(input, textarea)").first
    field.evaluate("node => { for (let n = node; n; n = n.parentElement) if (n.matches('.gradio-accordion')) n.open = true; }")
    field.fill(text, force=True)


def test_settings_are_chosen_around_what_was_typed(filled: Room) -> None:  # noqa: F811
    advice = filled.page.locator("#train_lora_advice")
    type_in(filled, "name", "my cat")
    type_in(filled, "epochs", "7")
    advice.get_by_role("combobox", name="What is it?").select_option("style")
    advice.get_by_role("button", name="Choose settings for me").click()
    wait_for(filled, "rank", "32")
    assert value(filled, "epochs") == "7" and "As you set them: Epochs." in advice.inner_text()
    wait_for(filled, "trigger", "ohwx_my_cat")
    advice.locator("summary").click()
    advice.get_by_text("A style changes many layers a little.").wait_for()
    advice.get_by_role("combobox", name="What is it?").select_option("object")
    advice.get_by_role("button", name="Choose settings for me").click()
    wait_for(filled, "rank", "8")
    assert value(filled, "epochs") == "7"


def test_answers_and_what_was_chosen_outlive_a_reload(filled: Room) -> None:  # noqa: F811
    advice = filled.page.locator("#train_lora_advice")
    type_in(filled, "name", "my cat")
    advice.get_by_role("combobox", name="What is it?").select_option("style")
    advice.get_by_role("button", name="Choose settings for me").click()
    wait_for(filled, "rank", "32")
    filled.page.evaluate("trainLora.report.current()")
    filled.open()
    wait_for(filled, "rank", "32")
    assert advice.get_by_role("combobox", name="What is it?").input_value() == "style"
    advice.get_by_role("combobox", name="What is it?").select_option("person")
    advice.get_by_role("button", name="Choose settings for me").click()
    wait_for(filled, "rank", "16")


def test_an_odd_setting_is_told_with_a_button_that_mends_it(filled: Room) -> None:  # noqa: F811
    type_in(filled, "name", "my cat")
    type_in(filled, "trigger", "ohwx")
    type_in(filled, "steps", "20000")
    report = filled.page.locator("#train_lora_report.prose")
    report.get_by_text("20000 steps are very many for 3 images").wait_for()
    button = report.get_by_role("button", name="About")
    steps = re.fullmatch(r"About (\d+) steps", button.inner_text())
    button.click()
    wait_for(filled, "steps", "0")
    report.get_by_text("steps are very many").wait_for(state="detached")
    assert steps is not None and f"= {steps[1]} steps" in report.inner_text() and value(filled, "name") == "my cat"
