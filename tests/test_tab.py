"""The form against the options, and the tab's answers."""

from __future__ import annotations

import asyncio
import html as markup
import importlib.util
import inspect
import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest

gr = pytest.importorskip("gradio")

from lib_lora.config.groups import all_options, build_config  # noqa: E402
from lib_lora.config.optimizer_specs import OPTIMIZERS  # noqa: E402
from lib_lora.config.options import decimal, field_value  # noqa: E402
from lib_lora.data.hidden_names import given_name  # noqa: E402
from lib_lora.datasets.catalogue import Catalogue  # noqa: E402
from lib_lora.errors import TrainLoraError  # noqa: E402
from lib_lora.families.family import DetectedModel  # noqa: E402
from lib_lora.families.sd1 import SD1  # noqa: E402
from lib_lora.families.sdxl import SDXL  # noqa: E402
from lib_lora.jobs.queue import Placed, Queue  # noqa: E402
from lib_lora.jobs.queue_entry import Entry  # noqa: E402
from lib_lora.jobs.queue_store import Store  # noqa: E402
from lib_lora.jobs.runner import Runner  # noqa: E402
from lib_lora.model.base import ModelInfo  # noqa: E402
from lib_lora.ui.form import basic_rows, component, installed_suggestions, settings_from  # noqa: E402
from lib_lora.ui.form_files import DroppedFiles  # noqa: E402
from lib_lora.ui.form_restored import restored  # noqa: E402
from lib_lora.ui.guard import REFUSED, Guard  # noqa: E402
from lib_lora.ui.tab import HINT, TrainTab  # noqa: E402
from lib_lora.ui.tab_queue import QueueSection  # noqa: E402
from tests.conftest import write_picture  # noqa: E402
from tests.folder_host import FolderHost as Host  # noqa: E402

GUARD = Guard()
SHOWN = [opt for opt in all_options() if opt.declaration.place != "none"]


def queue_of(host: Any, folder: Path) -> Queue:
    """An empty queue that trains nothing."""
    return Queue(Runner(host), Store(folder / ".jobs", folder / ".private"))


def tab_of(host: Any, folder: Path, *, hides_folders: bool = False) -> TrainTab:
    """The tab of a webui whose private files are in `folder`."""
    private = folder / ".private"
    return TrainTab(queue_of(host, folder), catalogue_in(folder), private / "taken", GUARD, hides_folders=hides_folders)


def catalogue_in(folder: Path) -> Catalogue:
    return Catalogue(folder / ".private" / "datasets")


@pytest.fixture
def tab(tmp_path: Path) -> TrainTab:
    made = tab_of(Host(tmp_path / "loras", "No checkpoint is loaded."), tmp_path)
    made.build()
    return made


def values(**changes: object) -> list[Any]:
    """What the form's components hold, in order: defaults but for `changes`."""
    return [changes.get(opt.name, "" if opt.type is tuple or opt.default is None else opt.default) for opt in order()]


def answered(tab: TrainTab, answer: Any, *sent: Any) -> Any:
    """What the page gets from an event of the tab."""
    return tab._guarded(answer)(tab._guard.key, *sent)


def of_queue(section: QueueSection, answer: Any, sent: str = "", others: int = 0) -> Any:
    """What the page gets from an event of queue and history."""
    return asyncio.run(section.guarded(answer, others)(section._guard.key, sent))


def order() -> list[Any]:
    return [opt for place in ("basic", "advanced") for opt in all_options() if opt.declaration.place == place]


def test_memory_is_told_of_a_model_that_is_there(tab: TrainTab, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = values(data=str(photos), trigger="ohwx")
    assert tab.memory(None, *asked) == "" and tab.memory(None, *values()) == ""
    counts = []

    class Model:
        def info(self) -> ModelInfo:
            return ModelInfo("m.safetensors", None, None)

    def counted(*args: object) -> str:
        counts.append(args)
        return "1.5 GB <at most>"

    monkeypatch.setattr(Host, "look", lambda self: Model())
    monkeypatch.setattr(Host, "held", DetectedModel(SD1, "a test"))
    monkeypatch.setattr("lib_lora.ui.report.estimate", counted)
    monkeypatch.setattr("lib_lora.ui.report.short", lambda found: found)
    assert all("1.5 GB &lt;at most&gt;" in tab.memory(None, *asked) for _ in range(2)) and len(counts) == 1
    tab.memory(None, *values(data=str(photos), trigger="ohwx", batch_size=2))
    assert len(counts) == 2, "another batch is another question"
    tab.memory(None, *values(data=str(photos), trigger="ohwx", batch_size=2, name="another", epochs=3, save_state=True))
    assert len(counts) == 2, "names, length and files are no question of memory"
    monkeypatch.setattr("lib_lora.ui.report.estimate", lambda *args: 1 / 0)
    assert "not known" in tab.memory(None, *values(data=str(photos), trigger="ohwx", batch_size=3))


@pytest.mark.parametrize("opt", SHOWN, ids=lambda opt: opt.name)
def test_every_option_has_a_component_that_says_what_the_declaration_says(opt: Any) -> None:
    made = component(opt)
    assert made.label == opt.declaration.label and made.info == opt.declaration.help
    raw = made.value
    assert opt.type is tuple or build_config({opt.name: raw}).value(opt) == opt.default
    if opt.choices:
        assert [choice[1] if isinstance(choice, tuple) else choice for choice in made.choices] == list(opt.choices)
    if isinstance(made, gr.Slider):
        assert (made.minimum, made.maximum) == opt.declaration.between


def test_suggestions_that_need_a_package_are_offered_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = next(opt for opt in SHOWN if opt.name == "optimizer")
    assert component(optimizer).allow_custom_value
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name == "torch" else None)
    of_torch = [name for name, spec in OPTIMIZERS.items() if spec.package == "torch"]
    assert installed_suggestions(optimizer) == of_torch and {"AdamW", "SGDNesterov"} <= {*of_torch}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True if name in {"torch", "lion_pytorch"} else None)
    assert {*installed_suggestions(optimizer)} == {*of_torch, "Lion"}


def test_the_basic_options_stand_in_rows_each_in_a_place_of_its_own() -> None:
    rows = [[opt.name for opt in row] for row in basic_rows()]
    assert rows[:3] == [["data"], ["name", "trigger"], ["epochs", "repeats", "steps"]]
    assert sorted(name for row in rows for name in row) == sorted(opt.name for opt in SHOWN if opt.declaration.place == "basic")
    places = [opt.declaration.row for row in basic_rows() for opt in row]
    assert len(set(places)) == len(places)


def test_decimal() -> None:
    assert [decimal(x) for x in (5e-5, 1e-4, 16.0, 0.0)] == ["0.00005", "0.0001", "16", "0"]


def test_report_without_images_is_a_hint(tab: TrainTab) -> None:
    assert tab.report(None, *values()).startswith(HINT)
    assert tab.report(None, *values(data=" ")).startswith(HINT)


def test_report_shows_what_was_found(tab: TrainTab, photos: Path) -> None:
    html = tab.report(None, *values(data=str(photos), trigger="ohwx", epochs=2, batch_size=2))
    for part in ("3_blob: 4 images × 3", "3 of 4 from files", "ohwx, a blob, number 0", "× 2 epochs", "512x512"):
        assert part in html
    assert "Name" not in html


def test_an_empty_rate_is_left_to_the_model() -> None:
    opt = next(opt for opt in all_options() if opt.name == "text_encoder_lr")
    made = component(opt)
    assert made.value == field_value(opt, None) == "" and made.placeholder == "0.00005; 0 for SDXL"
    assert field_value(opt, 0.0) == "0" and field_value(opt, 5e-5) == "0.00005"
    for text, wanted in (("", None), (" ", None), ("0", 0.0), ("0.00002", 2e-5)):
        assert build_config(settings_from([opt], [text])).optimizer.text_encoder_lr == wanted


def test_report_names_the_model_and_where_that_was_read(tab: TrainTab, photos: Path) -> None:
    host: Any = tab._runner.host
    host.told = []
    assert "not loaded yet; shown when the run starts" in tab.report(None, *values(data=str(photos), name="x"))
    host.held = DetectedModel(SDXL, "the loaded model")
    html = tab.report(None, *values(data=str(photos), name="x", v_parameterization=True))
    assert "<td>SDXL, predicts v (set by Checkpoint predicts v); read from the loaded model</td>" in html
    assert "722 layers of an SDXL: 0 of the text encoders, 722 of the U-Net; " in html and "problem" not in html
    html = tab.report(None, *values(data=str(photos), name="x", text_encoder_lr="0.00001"))
    assert "986 layers of an SDXL: 264 of the text encoders, 722 of the U-Net; " in html


def test_report_tells_what_the_model_refuses(tab: TrainTab, photos: Path) -> None:
    host: Any = tab._runner.host
    assert "No checkpoint is loaded." in tab.report(None, *values(data=str(photos), name="x"))
    host.told, host.held = [], DetectedModel(SD1, "a test")
    html = tab.report(None, *values(data=str(photos), name="x", block_dims=",".join(["4"] * 23)))
    assert html.count("<li>") == 1 and "the model is SD 1.x." in html


def test_several_folders_one_a_line(tab: TrainTab, tmp_path: Path) -> None:
    for name in ("one", "two words", "3_class"):
        write_picture(tmp_path / name / "a.png")
    lines = f'  "{tmp_path / "one"}"\n\n{tmp_path / "two words"}|4 \n'
    html = tab.report(None, *values(data=lines, reg_data=f"{tmp_path / '3_class'}\n", trigger="ohwx", validation_split=0.5))
    for part in ("one: 1 images × 10", "two words: 1 images × 4", "3_class: 1 images × 3", "2, 1 of them for validation"):
        assert part in html
    assert tab._settings(None, values(optimizer_args="a=1 b=(2, 3)"))["optimizer_args"] == "a=1 b=(2, 3)"
    data = next(opt for opt in SHOWN if opt.name == "data")
    assert component(data).max_lines > 1


@pytest.mark.case(20)
@pytest.mark.case(56)
def test_report_escapes(tab: TrainTab, tmp_path: Path) -> None:
    write_picture(tmp_path / "p" / "a.png")
    (tmp_path / "p" / "a.txt").write_text("<img src=x onerror=alert(1)>")
    html = tab.report(None, *values(data=str(tmp_path / "p"), name="<b>"))
    assert "<img" not in html and "&lt;img" in html and "<b>&lt;" not in html and "&lt;b&gt;" in html


def test_report_names_problems(tab: TrainTab) -> None:
    html = tab.report(None, *values(data="/does/not/exist", rank=0))
    assert "Rank (rank): got 0" in html


def test_an_illegal_value_is_one_problem(tab: TrainTab, photos: Path) -> None:
    """Rules see its default, which a name does not have."""
    given = values(name="x\0", data=str(photos))
    for html in (answered(tab, answer, None, *given) for answer in (tab.report, tab.start)):
        assert html.count("Name (name)") == 1 and "Name (name): contains a null character" in html


def test_start_tells_all_problems_at_once(tab: TrainTab, tmp_path: Path) -> None:
    html = answered(
        tab, tab.start, None, *values(rank=0, unet_lr="NaN", name="a/b", data=str(tmp_path / "missing"), resolution=500)
    )
    for part in ("Rank (rank)", "(unet_lr)", "plain file name", "does not exist", "multiple of 8", "No checkpoint is loaded."):
        assert html.count(part) == 1, part


def test_a_name_that_no_disk_takes_is_one_problem(tab: TrainTab, photos: Path, tmp_path: Path) -> None:
    """Also where runs have left their folder, in which a path with such a name cannot even be asked for."""
    (tmp_path / "loras" / ".train-lora").mkdir(parents=True)
    for name in ("x" * 300, "x" * 5000):
        assert tab.report(None, *values(name=name, data=str(photos), trigger="ohwx")).count("Name (name)") == 1


def test_start_answers_with_the_job(tab: TrainTab) -> None:
    assert "data-job" in tab.start(None, *values(name="x"))


def dataset_of(folder: Path, *names: str) -> str:
    """The id of a dataset with these images."""
    dataset = catalogue_in(folder).create("my cats")
    for number, name in enumerate(names):
        dataset.add(name, write_picture(folder / "up" / f"{number}.png", seed=number))
    return dataset.id


def test_the_dataset_in_work_is_trained_on(tab: TrainTab, tmp_path: Path) -> None:
    chosen = dataset_of(tmp_path, "a.png", "b.png")
    report = tab.report(chosen, *values(trigger="ohwx"))
    assert "my cats: 2 images" in report and ".private" not in report, "and not the name of the private folder"
    assert json.loads(markup.unescape(re.search("data-buckets='(.*?)'", report)[1]))["trigger"] == "ohwx"
    empty = catalogue_in(tmp_path).create("empty").id
    assert all(tab.report(none, *values()).startswith(HINT) for none in (empty, "", 7))
    for unknown in ("set-0123456789abcdef", "../x"):
        assert "does not exist any more" in answered(tab, tab.report, unknown, *values(trigger="ohwx"))


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for uploads that gradio serves."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    return tmp_path / "gradio"


def test_what_is_dropped_leaves_the_folder_that_gradio_serves(served: Path, tmp_path: Path) -> None:
    field = DroppedFiles(tmp_path / ".taken", file_count="multiple")
    sent = [write_picture(served / "abc" / "猫.png"), write_picture(served / "def" / "猫.png", seed=1)]
    content = [path.read_bytes() for path in sent]
    entries = [{"name": str(path), "data": None, "is_file": True} for path in sent]
    taken = [Path(file.name) for file in field.preprocess(entries)]
    assert not any(path.exists() for path in sent)
    assert [path.read_bytes() for path in taken] == content and {path.name for path in taken} == {"猫.pn_"}
    assert all(tmp_path / ".taken" in path.parents for path in taken)
    assert [Path(file.name) for file in field.preprocess(entries)] == taken, "a later event finds them"
    assert field.get_block_name() == "file" and field.preprocess(None) is None and field.preprocess([]) is None


@pytest.mark.case(20)
def test_dropped_files_keep_the_names_that_they_have(served: Path, tmp_path: Path) -> None:
    """Gradio makes one name of two emoji, and cuts long ones: the files keep their own, with equal captions too; no name leads elsewhere."""
    field = DroppedFiles(tmp_path / ".taken", file_count="multiple")
    pictures = {"🐱.png": "a/.png", "🐶.png": "b/.png", "x" * 251 + ".png": "c/" + "x" * 200}
    for number, stored in enumerate(pictures.values()):
        (served / stored).parent.mkdir(parents=True)
        write_picture(tmp_path / "p.png", seed=number).rename(served / stored)
    captions = {"🐱.txt": "d/.txt", "🐶.txt": "d/.txt"}  # of one content
    (served / "d").mkdir()
    (served / "d" / ".txt").write_text("a pet")
    entries = [
        {"name": str(served / stored), "orig_name": name, "is_file": True} for name, stored in {**pictures, **captions}.items()
    ]
    for _ in range(2):
        taken = [Path(file.name) for file in field.preprocess(entries)]
        assert [given_name(path) for path in taken] == [*pictures, *captions] and all(path.is_file() for path in taken)
    assert len({path.read_bytes() for path in taken[:3]}) == 3 and {path.read_text() for path in taken[3:]} == {"a pet"}
    for number, name in enumerate(["../x.png", "..", "/etc/x.png", "a\\b.png", "a\0.png", "\ud800.png", "x" * 300, "", 7, None]):
        stored = write_picture(served / f"e{number}" / "stored.png")
        (file,) = field.preprocess([{"name": str(stored), "orig_name": name, "is_file": True}])
        assert given_name(Path(file.name)) == "stored.png" and Path(file.name).is_file()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / ".taken" not in path.parents]


@pytest.mark.parametrize("name", ["{outside}", "{served}/../secret.png", "{served}/a/../../secret.png", "{served}/link/x.png",
                                  "{served}/a/link.png", "{served}/deep/er/x.png", "{served}/flat.png", "..", "", "a\0b", 3, None, ["x"]])  # fmt: skip
def test_what_was_not_uploaded_is_not_opened(name: Any, served: Path, tmp_path: Path) -> None:
    secret = write_picture(tmp_path / "secret.png")
    for path in ("deep/er/x.png", "flat.png", "a/x.png"):
        write_picture(served / path)
    (served / "a" / "link.png").symlink_to(secret)
    write_picture(tmp_path / "elsewhere" / "x.png")
    (served / "link").symlink_to(tmp_path / "elsewhere")
    if isinstance(name, str):
        name = name.format(outside=secret, served=served)
    field = DroppedFiles(tmp_path / ".taken", file_count="multiple")
    files = field.preprocess([{"name": name, "data": "data:image/png;base64,AAAA", "is_file": True}])
    assert not Path(files[0].name).exists()
    assert not list((tmp_path / ".taken").rglob("*")) and secret.is_file() and (tmp_path / "elsewhere" / "x.png").is_file()


def test_events_need_the_key(tmp_path: Path) -> None:
    started: list[object] = []
    queue = queue_of(Host(tmp_path), tmp_path)
    for name in ("submit", "move", "remove", "go_on", "start", "hold"):
        setattr(queue, name, lambda *given: started.append(given))
    blocks = TrainTab(queue, catalogue_in(tmp_path), tmp_path / "taken", GUARD).build()
    parts = {part["id"]: part["props"].get("elem_id") for part in blocks.get_config_file()["components"]}
    key = next(number for number, name in parts.items() if name == "train_lora_key")
    answered = [event for event in blocks.dependencies if event["backend_fn"]]
    for event, function in zip(blocks.dependencies, blocks.fns):
        if event in answered:
            assert event["inputs"][0] == key and event["js"].startswith("trainLora")
            told = function.fn("wrong", *[None] * (len(event["inputs"]) - 1))
            told = asyncio.run(told) if inspect.iscoroutine(told) else told
            silent = event["js"] == "trainLora.report.kept"  # nobody asked for it
            assert "value" not in str(told) if silent else "may not train" in str(told)
    assert len(answered) == 25 and not started and "--gradio-auth" in REFUSED


def test_folders_of_the_machine_can_be_hidden(tmp_path: Path, photos: Path) -> None:
    made = tab_of(Host(tmp_path / "loras"), tmp_path, hides_folders=True)
    parts = {part["props"].get("elem_id"): part["props"] for part in made.build().get_config_file()["components"]}
    named = {"data": str(photos), "reg_data": "x", "mask_data": "x", "network_weights": "x", "base_weights": "x"}
    for name, text in {**named, "resume": "/a/state", "sample_prompts": "a/prompts.txt"}.items():
        if name in named:
            assert not parts[f"train_lora_{name}"]["visible"]
        sent = values(**{name: text, "name": "x"})
        for html in (answered(made, answer, None, *sent) for answer in (made.report, made.start)):
            assert html.count("<li>") == 1 and f"({name}): the webui runs with --hide-ui-dir-config" in html
    allowed = made.report(
        dataset_of(tmp_path, "a.png"), *values(trigger="ohwx", resume="my cat", sample_prompts="a cat\na dog", steps=3)
    )
    assert "Images" in allowed and "--hide-ui-dir-config" not in allowed
    write_picture(tmp_path / ".jobs" / "id" / "drop" / "a.png")
    repeated = made.report(None, *values(data=f"{tmp_path / '.jobs' / 'id' / 'drop'}|2", trigger="ohwx", steps=3))
    assert "Images" in repeated and "--hide-ui-dir-config" not in repeated, "images that were dropped for a job"
    assert (tmp_path / ".private").is_dir()


def test_the_form_comes_back_as_the_browser_kept_it() -> None:
    """With typing errors too; what does not fit a component leaves it as it is."""
    typed = {
        "name": "a/b",
        "rank": 8,
        "unet_lr": "NaN",
        "overwrite": True,
        "lr_scheduler": "cosine",
        "resolution": 640,
        "data": "/x\n/y",
    }
    for name, value in {**typed, "epochs": "x", "optimizer": 7, "seed": True, "nothing": 1}.items():
        (found,) = [update for opt, update in zip(order(), restored(order(), json.dumps({name: value}))) if opt.name == name] or [
            {}
        ]
        assert found.get("value", "stays") == (value if name in typed else "stays"), name
    assert not any("value" in update for update in restored(order(), ""))
    for odd in ("[1]", "{", "[" * 5000, 7, "x" * 600_000):
        with pytest.raises(TrainLoraError, match="cannot be read"):
            restored(order(), odd)


def test_buttons_of_a_run_answer_without_one(tab: TrainTab) -> None:
    *orders, use_best = tab.answers
    assert [asyncio.run(answered(tab, order)) for order in orders] == [""] * 6
    assert "There is no other LoRA" in answered(tab, use_best)


def test_the_buttons_have_their_names(tmp_path: Path) -> None:
    blocks = tab_of(Host(tmp_path), tmp_path).build()
    parts = {part["props"].get("elem_id"): part["props"] for part in blocks.get_config_file()["components"]}
    for name in ("more_buttons", "pause", "go_on", "save_now", "sample_now", "use_best"):
        assert "train-lora-hidden" in parts[f"train_lora_{name}"]["elem_classes"], name
    assert all(part.do_not_save_to_config for part in blocks.blocks.values())
    assert {f"train_lora_{name}" for name in ("train", "stop", "keep", "message", "progress_box", "report")} <= set(parts)
    assert parts["train_lora_sample_prompts"]["lines"] == 4


def test_a_job_that_waits_is_told_its_place(tab: TrainTab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tab._queue, "submit", lambda config: Placed(f"<{config.run.name}>", place=2))
    html = tab.start(None, *values(name="x"))
    assert "&lt;x&gt; is waiting; its place in the queue is 2." in html and "data-job" not in html
    assert html != tab.start(None, *values(name="x"))


ODD = {
    "name": "é x", "data": ["a b", "c|3"], "unet_lr": 5e-5, "rank": 7, "optimizer": "Lion", "optimizer_args": "a=1 b=(2, 3)",
    "sample_prompts": "one\ntwo", "overwrite": True, "validation_split": 0.25, "base_weights": ["w 1", "w 2"], "block_dims": "1,2",
}  # fmt: skip


def test_repeat_fills_every_field_so_that_the_same_settings_come_back(tab: TrainTab) -> None:
    """The components are given what `start` reads again."""
    known = {opt.name for opt in order()}
    config = build_config({name: value for name, value in ODD.items() if name in known})
    entry = Entry("id", json.loads(json.dumps(config.to_flat())), 1.0, "finished")
    tab._queue._set((entry,))
    told, *fields = tab._jobs.fill("id", from_state=False)
    assert "settings of é x: change them, and press Train." in told
    flat = tab._settings(None, [field["value"] for field in fields])
    assert build_config(flat) == config
    assert len(known & ODD.keys()) > 8


def test_repeat_from_a_state_and_of_nothing(tab: TrainTab, tmp_path: Path) -> None:
    entry = Entry("id", {"name": "cat"}, 1.0, "finished", state_folder=str(tmp_path))
    tab._queue._set((entry,))
    resume = [opt.name for opt in order()].index("resume")
    repeat = partial(tab._jobs.fill, from_state=False)
    assert repeat("id")[1 + resume]["value"] == ""
    told, *fields = tab._jobs.fill("id", from_state=True)
    assert fields[resume]["value"] == tmp_path.name and "settings of cat and its newest state" in told
    told, *fields = of_queue(tab._jobs, repeat, "gone", len(order()))
    assert "not exist any more" in told and not [field for field in fields if "value" in field]
    tab._queue._set((Entry("id", {"name": "cat", "rank": "x", "nothing": 1}, 1.0, "failed"),))
    told = of_queue(tab._jobs, repeat, "id", 1)[0]
    assert "Rank (rank): got" in told and "&#x27;nothing&#x27; does not exist" in told


def test_buttons_of_the_queue_answer_with_a_sentence_or_a_mark(tab: TrainTab) -> None:
    jobs = tab._jobs
    answers = [of_queue(jobs, jobs.changes[name]) for name in ("up", "down", "remove", "resume", "start", "hold")]
    assert ["not exist any more" in answer for answer in answers] == [True] * 4 + [False] * 2
    assert len(set(answers)) == 6 and tab._queue.held
    of_queue(jobs, jobs.changes["start"])
    assert not tab._queue.held
