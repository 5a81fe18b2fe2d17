"""Advice over HTTP: settings that follow from a dataset, what the user set stays, and problems have buttons that mend them."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from lib_lora.advice.derive import derive  # noqa: E402
from lib_lora.advice.situation import Photo, Situation  # noqa: E402
from lib_lora.check import look  # noqa: E402
from lib_lora.config.groups import build_config, options_by_name, read_config  # noqa: E402
from lib_lora.config.options import field_value  # noqa: E402
from lib_lora.data.sizes import Size  # noqa: E402
from lib_lora.datasets.catalogue import Catalogue  # noqa: E402
from lib_lora.errors import DatasetError  # noqa: E402
from lib_lora.ui.advised import judged  # noqa: E402
from lib_lora.ui.api.advice import KINDS  # noqa: E402
from lib_lora.ui.api.asked import asked_settings  # noqa: E402
from lib_lora.ui.api.serving import Call  # noqa: E402
from lib_lora.ui.report import judged_html, reported  # noqa: E402
from tests.api import Api, app_in, packed, picture  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.folder_host import FolderHost  # noqa: E402

COUNT = 12


@pytest.fixture
def api(tmp_path: Path) -> Api:
    return Api(app_in(tmp_path), tmp_path)


def tigers(api: Api) -> str:
    dataset = api.made("tigers")
    files = {f"{number}.png": picture(640, 512, number) for number in range(COUNT)}
    files |= {f"{number}.txt": b"tiger, grass, sun" for number in range(COUNT)}
    api.upload(dataset, "all.zip", packed(files))
    return dataset


def test_settings_are_those_that_follow_from_the_dataset(api: Api) -> None:
    told = api.ask(
        "POST", "advice", {"settings": {"name": "my cat"}, "dataset": tigers(api), "kind": "object", "thoroughness": 4}
    )
    photos = tuple(Photo(Size(512, 640)) for _ in range(COUNT))
    expected = derive(
        Situation("object", 4, "my cat", photos, captions="tags", longest_caption=5, device="cpu"), {"name": "my cat"}
    )
    options = options_by_name()
    assert told["fields"] == {choice.name: field_value(options[choice.name], choice.value) for choice in expected.choices}
    assert [choice["text"] for choice in told["choices"]] == [choice.why for choice in expected.choices]
    assert expected.length is not None and told["steps"] == expected.length.steps
    assert told["kept"] == [] and told["fields"]["shuffle_caption"] is True


def test_what_the_user_set_stays_and_what_was_chosen_earlier_does_not(api: Api) -> None:
    dataset = tigers(api)

    def ask(kind: str, settings: dict[str, Any], chosen: dict[str, Any]) -> Any:
        return api.ask("POST", "advice", {"settings": settings, "dataset": dataset, "kind": kind, "chosen": chosen})

    first = ask("style", {"rank": 64}, {})
    assert "rank" not in first["fields"] and first["kept"] == [{"option": "rank", "label": "Rank"}]
    assert first["fields"]["caption_dropout_rate"] == "0.1" and first["fields"]["alpha"] == "32"
    second = ask("person", {"rank": 64, **first["fields"]}, first["fields"])
    assert second["fields"]["caption_dropout_rate"] == "0" and second["kept"] == first["kept"], "back to its default"
    assert second["fields"]["flip_aug"] is False
    assert ask("style", {"rank": 32}, {})["kept"] == [], "it would be chosen"
    typed = ask("person", {**first["fields"], "alpha": "3"}, first["fields"])
    assert "alpha" not in typed["fields"] and typed["kept"][0]["option"] == "alpha"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_rank_of_its_own(api: Api, kind: str) -> None:
    assert api.ask("POST", "advice", {"kind": kind})["fields"]["rank"] == {"person": 16, "style": 32, "object": 8}[kind]


def test_without_images_and_with_an_illegal_value_there_is_advice(api: Api) -> None:
    told = api.ask("POST", "advice", {"settings": {"unet_lr": "fast"}})
    assert told["steps"] is None and told["fields"]["unet_lr"] == "0.0001"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"kind": "cat"}, "Field 'kind': must be one of person, style, object."),
        ({"thoroughness": 6}, "Field 'thoroughness': must be a whole number from 1 to 5."),
        ({"thoroughness": True}, "must be a whole number"),
        ({"thoroughness": "3"}, "must be a whole number"),
        ({"settings": []}, "Field 'settings': must be an object"),
        ({"chosen": "x"}, "Field 'chosen': must be an object"),
        ({"color": 1}, "no field 'color'"),
    ],
)
def test_bad_requests_are_a_sentence(api: Api, body: dict[str, Any], words: str) -> None:
    assert words in api.refused(422, "POST", "advice", body)


def test_a_dataset_that_is_gone_and_hidden_folders_are_refused(api: Api, tmp_path: Path) -> None:
    assert "does not exist any more" in api.refused(404, "POST", "advice", {"dataset": "set-0123456789abcdef"})
    hides = Api(app_in(tmp_path / "other", hides_folders=True), tmp_path / "other")
    assert "--hide-ui-dir-config" in hides.refused(422, "POST", "advice", {"settings": {"data": ["/home"]}})


def test_the_settings_of_a_request_have_its_datasets(tmp_path: Path) -> None:
    catalogue = Catalogue(tmp_path)
    empty, full = catalogue.create("empty"), catalogue.create("full")
    write_picture(full.folder / "a.png")
    call = Call({}, body={"settings": {"data": ["/photos"], "rank": "no"}})
    config, illegal = asked_settings(call, catalogue, full.id, empty.id, hides_folders=False)
    assert (config.data.data, config.data.reg_data) == (("/photos", str(full.folder)), ())
    assert [problem.option for problem in illegal] == ["rank"]
    with pytest.raises(DatasetError, match="--hide-ui-dir-config"):
        asked_settings(call, catalogue, full.id, hides_folders=True)
    mine = Call({}, body={"settings": {}})
    assert asked_settings(mine, catalogue, full.id, hides_folders=True)[0].data.data == (str(full.folder),), "not the user's"


# --- the report's buttons


def html_of(tmp_path: Path, **settings: Any) -> str:
    for number in range(COUNT):
        write_picture(tmp_path / "photos" / f"{number}.png", 600 + number, 512)
    config, illegal = read_config({"data": [str(tmp_path / "photos")], "name": "x", "trigger": "ohwx", **settings})
    host: Any = FolderHost(tmp_path / "loras")
    found = look(config, host)
    mended, odd = judged(found, reported(found, illegal)[1], host.device())
    return judged_html(mended, "problem") + judged_html(odd, "odd")


def mends(html: str) -> list[tuple[str, dict[str, Any]]]:
    return [(unescape(text), json.loads(unescape(values))) for values, text in re.findall("data-mend='(.*?)'>(.*?)<", html)]


def test_odd_settings_have_a_button_and_good_ones_are_not_mentioned(tmp_path: Path) -> None:
    html = html_of(tmp_path, steps=20000)
    ((text, values),) = mends(html)
    assert "20000 steps are very many for 12 images" in html and re.fullmatch(r"About \d+ steps", text)
    assert "very many" not in html_of(tmp_path, **{"steps": 20000, **values})
    assert html_of(tmp_path, epochs=10, repeats=15) == ""


def test_a_problem_is_mended_by_its_button(tmp_path: Path) -> None:
    html = html_of(tmp_path, resolution=192)
    ((text, values),) = mends(html)
    assert html.count("<li>") == 1 and "Resolution" in html and text
    assert html_of(tmp_path, **{"resolution": 192, "epochs": 10, "repeats": 15, **values}) == ""


def test_a_problem_that_no_setting_mends_has_no_button(tmp_path: Path) -> None:
    html = html_of(tmp_path, network_weights=str(tmp_path / "no.safetensors"))
    assert "<li>" in html and mends(html) == []


def test_values_of_buttons_are_escaped(tmp_path: Path) -> None:
    config = build_config({"name": "x"})
    assert read_config(config.to_flat())[0] == config
    html = html_of(tmp_path, optimizer="a'b\"<c>")
    assert "<c>" not in html and mends(html)[0][1]["optimizer"] == "AdamW"
