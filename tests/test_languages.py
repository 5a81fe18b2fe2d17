"""Texts for people in other languages: every text has its entry, every entry its text, and messages are translated with their values."""

from __future__ import annotations

import ast
import errno
import html
import importlib
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from string import Formatter
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from lib_lora.advice.derive import derive
from lib_lora.advice.judgements import judge
from lib_lora.check import find_images
from lib_lora.config.groups import all_options, build_config, group_titles, read_config
from lib_lora.config.presets import PRESETS
from lib_lora.config.rules import config_notes, config_problems
from lib_lora.errors import ConfigError, DatasetError
from lib_lora.kohya.handed import KNOWN as KINDS
from lib_lora.kohya.importing import import_file
from lib_lora.kohya.report import HEADS
from lib_lora.kohya.rules import LEFT_UNTRAINED
from lib_lora.kohya.table import key_table
from lib_lora.languages.spoken import follow, said, said_in
from lib_lora.languages.template import Template
from lib_lora.languages.translation import LABELS, LANGUAGES, LONGEST, MESSAGES, language_of, translated
from lib_lora.plan import make_plan
from lib_lora.ui.form_continue import NOTHING
from lib_lora.ui.form_presets import DEFAULTS, EXPORTS, choose_preset, import_html
from lib_lora.ui.report import list_html, plan_html
from tests.e2e.browser import launch, missing
from tests.prose import prose
from tests.situations import SITUATIONS
from tests.test_advice_judgements import ODD, ids

ROOT = Path(__file__).parent.parent
LIB, PAGE = ROOT / "lib_lora", ROOT / "javascript"

# The tab shows what the rooms say that the webui's script imports, directly or not. The others are of the command line (also
# comparisons with recordings, and what there is to say of a file), whose messages are English.
START = ROOT / "scripts/train_lora.py"
# a room that says what it says in the files that it writes, for other programs
IN_FILES = {"kohya/export.py"}
# what a program reads, or what only another program is told
NO_TEXT = {
    "{{{0}}} is 0", " | None", "private, max-age=86400", "([A-Za-z]+) (.+)", "Bearer {0}", "caption alone", "System Volume Information",
    "Describe this image in one sentence, as the caption of a photo. Answer with the caption only.",
    " <button type='button' class='train-lora-mend' data-mend='{0}'>{1}</button>", "train-lora reader", "train-lora looks", "{0}<table class='train-lora-report'>{1}</table>", "SD 1.x", "SD 2.x",
    "The LoRA ", "{0} GB", "{0} MB", "Sample prompts (sample_prompts): ", "no caption",
    "Saving the state of the run. Press again to end at once.", "text 1", "text 2", "text h", "Stable Cascade",
    "rank dropout", "sd version", "activation text", "preferred weight", "negative text", "sd-webui-train-lora {0}",
    "import sys; sys.modules['numpy'] = None; sys.path.insert(0, {0}); from lib_lora.data.decoder_main import main; main()",
}  # fmt: skip
# words and pieces that stand in the holes of messages, and are no prose themselves
PIECES = {
    "folder", "file", "schedule", "optimizer", "bytes", "it", "them", "wide", "narrow", "crop of {0}", "Caption files {0}", "noise",
    "Sample prompts (sample_prompts): {0}", "one", "No such file or directory", "Permission denied", "No space left on device",
    "Is a directory", "Not a directory", "Input/output error", "Read-only file system", "File name too long", "encoder", "encoders", "training",
    "SD 1.x, SD 2.x and SDXL", "mask of {0}", "include {0}", "Prefix", "Suffix", "Threshold", "Address", "Prompt", "Key",
}  # fmt: skip
# what Pillow says of the commonest broken files
OF_PILLOW = {"image file is truncated ({0} bytes not processed)", "image file is truncated", "cannot identify image file {0}"}
NOT_ON_THE_PAGE = {
    "Content-Type", "Files", "use strict", "train-lora: the queue could not be loaded",
    "train-lora: the status could not be loaded",
}  # fmt: skip


def labels(language: str) -> dict[str, str]:
    return dict(json.loads((LABELS / f"{language}.json").read_text(encoding="utf-8")))


def messages(language: str) -> dict[str, str]:
    return dict(json.loads((MESSAGES / f"{language}.json").read_text(encoding="utf-8")))


def form_texts() -> set[str]:
    """What the fields of the form and the presets show."""
    found = {*group_titles().values(), DEFAULTS, NOTHING, *EXPORTS}
    for opt in all_options():
        declared = opt.declaration
        found |= {declared.label, declared.help, declared.placeholder, declared.unset}
    for preset in PRESETS.values():
        found |= {preset.title, preset.text, *(choice.why for choice in preset.choices)}
    return {text for text in found if re.search("[A-Za-z]", text)} - {"ohwx_cat", "my_cat"}


def tab_texts() -> set[str]:
    """Labels, buttons and titles in the source of the tab, and the heads of the report's rows."""
    found = {"Train LoRA", "Memory"}
    for path in (LIB / "ui").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                named = [word.value for word in node.keywords if word.arg in ("label", "info", "placeholder")]
                named += (
                    node.args[:1] if isinstance(node.func, ast.Attribute) and node.func.attr in ("Button", "Accordion") else []
                )
                found |= {one.value for one in named if isinstance(one, ast.Constant) and isinstance(one.value, str)}
            if path.name == "report.py" and isinstance(node, ast.Tuple) and len(node.elts) == 2:
                found |= {
                    head for head in (getattr(node.elts[0], "value", None),) if isinstance(head, str) and head[:1].isupper()
                }
    return {text for text in found if text}


def page_texts() -> set[str]:
    """Literals of the page's scripts that look like texts for people."""
    found = set()
    for path in PAGE.glob("*.js"):
        code = re.sub(r"(^|\s)//.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        found |= set(re.findall(r'"((?:[^"\\\n]|\\.)*)"', code))
    shown = {text for text in found if re.match("[A-Z {].*[a-z]", text) or re.search("[a-z]{2} [a-z]", text)}
    return {text for text in shown if not re.match("[#.]|train-lora-", text)} - NOT_ON_THE_PAGE


def imported(path: Path) -> set[Path]:
    """The rooms of lib_lora that a file imports, at its top or later."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {room for name in names if (room := ROOT / f"{name.replace('.', '/')}.py").is_relative_to(LIB) and room.is_file()}


def rooms() -> list[Path]:
    """The rooms of the tab."""
    found: set[Path] = set()
    new = imported(START)
    while new:
        found |= new
        new = {room for path in new for room in imported(path)} - found
    return sorted(path for path in found if not path.is_relative_to(LIB / "languages"))


def is_of_kohya(text: str) -> bool:
    """Whether a text consists of keys of kohya's, or is a choice of its form."""
    return set(text.split()) <= key_table().keys() or text in KINDS or text in LEFT_UNTRAINED


def message_texts() -> set[str]:
    """The templates of the tab's rooms, without those of the form."""
    shown = labels("ja")
    found = {text for path in rooms() if path.relative_to(LIB).as_posix() not in IN_FILES for text in prose(path)}
    found |= set(HEADS.values())
    return {text for text in found - NO_TEXT if text.format(*"0123456789") not in shown and not is_of_kohya(text)}


def holes(text: str) -> list[str]:
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_of_form_and_page_has_an_entry_and_every_entry_a_text(language: str) -> None:
    shown, known = form_texts() | tab_texts() | page_texts(), labels(language)
    shown |= {text for path in (LIB / "ui").glob("*.py") for text in prose(path) if text in known}
    assert sorted(shown - known.keys()) == []
    assert sorted(known.keys() - shown) == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_message_has_an_entry_and_every_entry_a_message(language: str) -> None:
    known, made = messages(language), message_texts()
    assert sorted((made | PIECES | OF_PILLOW) - known.keys()) == []
    assert sorted(known.keys() - made - PIECES - OF_PILLOW) == []


def test_all_rooms_but_those_of_the_command_line_are_of_the_tab() -> None:
    others = {path.relative_to(LIB).as_posix() for path in LIB.rglob("*.py") if path.name != "__init__.py"}
    others -= {path.relative_to(LIB).as_posix() for path in rooms()}
    assert {name for name in others if not name.startswith(("languages/", "replay/"))} == {
        "__main__.py", "cli.py", "cli_options.py", "tiny.py", "hosts/standalone.py", "hosts/ldm_config.py", "output/inspect.py",
        "output/truncate.py", "layers.py",
    }  # fmt: skip
    assert {name for name in IN_FILES if (LIB / name).is_file()} == IN_FILES


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_have_the_holes_of_their_texts_and_say_something_else(language: str) -> None:
    for texts in (labels(language), messages(language)):
        for english, foreign in texts.items():
            if "{red|blue}" not in english:
                assert holes(foreign) == holes(english), english
            assert foreign.strip(), english
    same = {
        english for texts in (labels(language), messages(language)) for english, foreign in texts.items() if english == foreign
    }
    assert same <= {
        "LoRA",
        "LoCon {0}",
        "LoHa {0}",
        "LoKr {0}",
        "GLoRA {0}",
        "{0}{1} GB",
        "SD 1.x",
        "Clip skip",
        "Alpha",
        "LoRA+",
        "Min-SNR gamma",
        "sd-scripts (TOML)",
        "kohya_ss (JSON)",
    }


CODE = re.compile(r"(?<![\w'])(?:--[a-z][a-z-]+|[A-Za-z]\w*_\w*[A-Za-z0-9]|\w+=[-\w.'(][\w.,:'()]*[\w')]|'[^' ]*[\d.][^' ]*')")
OURS = {"name=value", "N_name", "N_class", "N_text", "1_CLASS"}  # not code: they stand for what a person writes


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_in_texts_stays_as_it_is(language: str) -> None:
    """Options, arguments, and values that a person is to copy."""
    for texts in (labels(language), messages(language)):
        changed = {
            english: lost
            for english, foreign in texts.items()
            if (lost := [code for code in CODE.findall(english) if code not in foreign and code not in OURS])
        }
        assert changed == {}


def test_exceptions_and_pieces_are_in_the_source() -> None:
    said_there = {text for path in rooms() for text in prose(path)}
    assert sorted(NO_TEXT - said_there) == []
    literals = {
        node.value
        for path in rooms()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    words = {word for text in literals for word in re.findall("[A-Za-z]+", text)}
    told = {text for number in errno.errorcode for text in [os.strerror(number)]} | literals
    for piece in PIECES - told:
        assert set(re.findall("[A-Za-z]+", re.sub(r"\{\d\}", "", piece))) <= words, piece


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.js")), ids=lambda path: path.stem)
def test_sentences_of_the_page_with_values_are_said(path: Path) -> None:
    """A sentence in a template literal cannot be found in a dictionary."""
    code = re.sub(r"(^|\s)//.*", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for literal in re.findall(r"`([^`]*)`", code):
        words = re.sub(r"\$\{(?:[^{}]|\{[^}]*\})*\}|train-lora-[a-z-]*", "", literal)
        is_key = words == "details of "
        assert is_key or not re.search(r"[A-Za-z]{2,} [a-z]{2,}|^[A-Z][a-z]+ |(?:^| )[A-Za-z]{3,}(?= |$)", words), literal


@pytest.mark.parametrize(("language", "encoding"), [("zh_CN", "gb2312"), ("zh_TW", "big5"), ("ja", "shift_jis")])
def test_characters_are_those_of_the_language(language: str, encoding: str) -> None:
    """Simplified and traditional ones are not mixed."""
    for foreign in (*labels(language).values(), *messages(language).values()):
        assert [char for char in foreign if "\u3400" <= char <= "\u9fff" and not char.encode(encoding, "ignore")] == [], foreign


SETTINGS: list[dict[str, Any]] = [
    {"rank": -1}, {"rank": "x"}, {"overwrite": "maybe"}, {"adapter_type": "foo"}, {"nosuch": 1}, {"trigger": "a\0b"}, {"name": ""},
    {"name": "a/b"}, {"name": "con"}, {"unet_lr": 0, "text_encoder_lr": 0}, {"block_dims": "1,2"}, {"down_lr_weight": "foo"},
    {"min_timestep": 900, "max_timestep": 100}, {"optimizer": "Prodigy", "unet_lr": 1, "text_encoder_lr": 0.5, "loraplus_lr_ratio": 4},
    {"lr_scheduler": "adafactor"}, {"optimizer": "os.system"}, {"optimizer": ""}, {"resolution": 513}, {"random_crop": True},
    {"min_bucket_reso": 2000, "max_bucket_reso": 100}, {"adapter_type": "dora", "base_weights": ["x"]},
    {"adapter_type": "diag-oft", "rank": 1}, {"embedding_vectors": 2}, {"embedding_vectors": 2, "trigger": "a.b"},
    {"sample_prompts": "b --w 99999", "sample_at_first": True}, {"sample_prompts": "/no/such.txt", "sample_at_first": True},
    {"save_last_n_epochs": 3}, {"save_n_epoch_ratio": 3, "save_every_n_epochs": 2}, {"keep_tokens": 3}, {"huber_c": 0.3},
    {"full_fp16": True, "mixed_precision": "bf16"}, {"optimizer_args": ["abc"]}, {"caption_extension": "txt"},
    {"lr_warmup_steps": 10, "lr_scheduler": "constant"}, {"lr_scheduler_args": ["a=1"]}, {"lr_scheduler_type": "foo.Bar"},
    {"stop_text_encoder_training": 1.5}, {"v_pred_like_loss": 0.5, "v_parameterization": True}, {"prior_loss_weight": 0.5},
]  # fmt: skip
ENGLISH = re.compile(  # what only a sentence that is not translated has
    r"(?<![A-Za-z_])(?:must|got|choose|of|the|is|are|and|or|because|set|to|not|with|from|a|at|leave|turn|it|which)(?![A-Za-z_])"
)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("changed", SETTINGS, ids=str)
def test_problems_and_notes_of_settings_are_translated_whole(changed: dict[str, Any], language: str) -> None:
    config, illegal = read_config({"name": "ok", "data": ["x"], **changed})
    told = [*illegal, *config_problems(config), *config_notes(config)]
    assert told
    for text in told:
        foreign = translated(str(text), language)
        assert foreign != text and ENGLISH.findall(re.sub("'[^']*'", "", foreign)) == [], foreign


@pytest.mark.parametrize("language", LANGUAGES)
def test_advice_is_translated_whole(language: str) -> None:
    """Reasons of derived settings, and what is odd about settings."""
    told = {choice.why for situation in SITUATIONS for choice in derive(situation).choices}
    for _, situation, pinned, _, _ in ODD:
        told |= {str(one) for one in judge(derive(situation, pinned).config, situation, ids=ids)}
    assert len(told) > 50
    for text in told:
        foreign = translated(text, language)
        assert foreign != text and ENGLISH.findall(re.sub("'[^']*'", "", foreign)) == [], foreign


def test_titles_of_options_have_their_label_and_keep_their_name() -> None:
    (problem,) = read_config({"rank": "x"})[1]
    assert str(problem) == "Rank (rank): got 'x', must be a whole number from 1 to 1024."
    assert translated(str(problem), "zh_CN") == "维度 (rank)：得到 'x'，必须是整数（1 到 1024）。"
    assert translated(str(problem), "ja") == "ランク (rank)：'x' になっています。整数（1 から 1024）にしてください。"


def test_the_report_of_a_dataset_is_translated(tmp_path: Path, photos: Path) -> None:
    follow(lambda: "zh_CN")
    config = build_config({"name": "x", "data": [str(photos)], "trigger": "ohwx", "resolution": 64, "batch_size": 1})
    dataset = find_images(config)
    told = plan_html(make_plan(config, dataset))
    assert re.search("含学习次数每个循环 [0-9]+ 张；并行数量 1：每个循环 [0-9]+ 步；× 10 个循环 = [0-9]+ 步", told), told
    assert re.search("[0-9]+ 张图片", told) and " images" not in told.replace("photos", "")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("changed", [{"masked_loss": True}, {"masked_loss": True, "mask_data": "nowhere"}], ids=str)
def test_problems_of_masks_are_translated_whole(changed: dict[str, Any], language: str, photos: Path) -> None:
    dataset = find_images(build_config({"name": "x", "data": [str(photos)], "trigger": "ohwx", "resolution": 64, **changed}))
    assert dataset.problems
    for text in dataset.problems:
        foreign = translated(str(text), language)
        assert foreign != text and ENGLISH.findall(re.sub("'[^']*'", "", foreign)) == [], foreign


KOHYA = """
[all]
network_module = "lycoris.kohya"
network_args = ["algo=lokr", "factor=8", "train_norm=True", "conv_dim=99999"]
network_dim = 16
network_alpha = 0
unet_lr = 0.0001
text_encoder_lr = "much"
lr_scheduler = "LoraEasyCustomOptimizer.Rex"
max_train_steps = 500
clip_skip = 99
xformers = true
network_dims = 4
sample_sampler = "euler"
flux1_checkbox = true
gradient_checkpointing = true
"""


@pytest.mark.parametrize("language", ["", *LANGUAGES])
def test_a_preset_is_chosen_by_its_title_in_the_language_or_in_english(language: str) -> None:
    follow(lambda: language)
    for preset in PRESETS.values():
        chosen = [choose_preset(title)[0] for title in (preset.title, said(preset.title))]
        assert chosen[0] == chosen[1] != "" and all(choice.why in html.unescape(chosen[0]) for choice in preset.choices)
    assert choose_preset(said(DEFAULTS))[0] == ""
    with pytest.raises(ConfigError, match="Preset: must be one of"):
        choose_preset("cat")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_report_of_an_import_is_translated_whole(language: str, tmp_path: Path) -> None:
    path = tmp_path / "kohya.toml"
    path.write_text(KOHYA, encoding="utf-8")
    follow(lambda: language)
    shown = import_html(import_file(path))
    assert shown.count("<li>") > 12 and len(re.findall("<summary>[^A-Za-z<]+: [0-9]+</summary>", shown)) == 4, shown
    for line in re.findall("<li>(.*?)</li>", shown):
        assert ENGLISH.findall(re.sub("'[^']*'", "", html.unescape(line))) == [], line
    (inner,) = re.findall("<li>(all.network_args = .*?)</li>", shown)
    assert all(re.search(rf"{name}: [^:]*[\u3040-\u30ff\u3400-\u9fff]", inner) for name in ("algo", "factor", "train_norm")), (
        inner
    )


@pytest.mark.parametrize("language", LANGUAGES)
def test_faults_of_states_are_translated_whole(language: str) -> None:
    for inner in (
        "position must be a table", "position/step must be a whole number from 1 to 9007199254740992", "session lacks layers, adapters",
        "the tensor 'a' is used twice", "the layer 'lora_te_x' has lora_up.weight with the shape (1,), must have 2 dimensions",
        "average/averages must have the weights' shapes, in fp32", "best/adapters of 'x' are not an adapter",
    ):  # fmt: skip
        text = f"Resume from (resume): '/states/cat' is damaged: {inner}; choose an older state."
        foreign = translated(text, language)
        assert foreign != text and ENGLISH.findall(re.sub("'[^']*'", "", foreign)) == [], foreign


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    for name, size in {"a": (64, 64), "b": (64, 128), "c": (128, 64)}.items():
        Image.new("RGB", size, "red").save(folder / f"{name}.png")
    return folder


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    yield
    follow(lambda: "")


def test_parts_of_a_sum_are_translated_by_their_names() -> None:
    text = "at most 4.5 GB, while training: U-Net 1.7, text encoders 0.2, drawing a picture 0.1; 2.4 GB more than the model alone"
    assert translated(text, "zh_CN") == "最多 4.5 GB，在训练时：U-Net 1.7、文本编码器 0.2、生成图片 0.1；比单独的模型多 2.4 GB"
    for caption in ("cat 1, dog 2", "1girl, solo 2"):
        assert translated(caption, "ja") == caption


def test_names_of_the_user_stay_as_they_are() -> None:
    """Also those that are words of ours, if they are quoted."""
    for name in ("Steps", "3 images", "leave out cat", "Rank (rank)", "猫 的.png", "a; b", "{0}", "{x"):
        text = f"Image {name!r} has no caption; add a.txt next to it, or give a Trigger word (trigger)."
        assert f"{name!r}" in translated(text, "zh_TW")
    assert translated("replace cat", "ja") == "cat を置換"


def test_a_message_in_a_message_is_translated_too() -> None:
    inner = "Image 'a.png' is animated; save the frame you want as a single image. It is not trained on."
    assert translated(inner, "zh_CN") == "图片 'a.png' 是动画；请把需要的一帧存为单张图片。不会用它训练。"
    assert translated("The run cannot start (a number).", "zh_TW") == translated("The run cannot start (a number).", "zh_TW")


def test_a_text_without_a_template_stays_english() -> None:
    for text in ("", "cat", "Something that nobody says.", "got", ": ; . {0}"):
        assert translated(text, "ja") == text
    known = "Image 'a.png' has changed since it was checked; start again."
    assert translated(known, "de") == translated(known, "") == known != translated(known, "ja")


@pytest.mark.parametrize(
    "piece", ["a and b; c: d, must be ", "Image 'a' and ", "got ", ": ", "; ", " and 3 more", "(rank) ", "is in ", "'"]
)
def test_hostile_texts_take_no_time(piece: str) -> None:
    translated("x", "zh_CN")
    start = time.process_time()
    for text in (piece * (LONGEST // len(piece)), piece * 10**6):
        translated(text, "zh_CN")
    assert time.process_time() - start < 2
    assert translated(piece * LONGEST, "zh_CN") == piece * LONGEST, "too long to be read"


def test_values_are_what_stands_in_the_holes() -> None:
    template = Template("Zip {0} has {{more}} than {1} files; {2}.")
    assert template.values("Zip 'a' has {more} than 3 files; pack.") == [["'a'", "3", "pack"]]
    assert template.values("Zip 'a' has {more} than 3 files") == [] == template.values("")
    both = Template("{0}: {1}").values("a: b: c")
    assert both == [["a", "b: c"], ["a: b", "c"]]
    assert Template(" and {0} more").open_values("'a' and 3 more") == [["'a'", "3", ""]]


@pytest.mark.parametrize(("name", "language"), {
    "None": "", "": "", "zh_CN": "zh_CN", "zh-Hans (Stable)": "zh_CN", "zh_TW": "zh_TW", "zh-Hant (Stable)": "zh_TW",
    "ja": "ja", "ja_JP": "ja", "java": "", "de_DE": "", "zhx": "", "fr (zh)": "",
}.items())  # fmt: skip
def test_languages_are_found_by_the_names_of_other_extensions(name: str, language: str) -> None:
    assert language_of(name) == language


def test_lists_and_answers_are_in_the_language_of_the_host() -> None:
    text = "Image 'a.png' has changed since it was checked; start again."
    answer = {"problems": [{"option": "x", "text": text}], "images": [{"caption": text, "notices": [text], "undo": None}]}
    assert said(text) == text and said_in(answer) == answer, "English until a host says otherwise"
    follow(lambda: "ja_JP")
    told = translated(text, "ja")
    assert told in list_html([text], "note").replace("&#x27;", "'")
    assert said_in(answer) == {
        "problems": [{"option": "x", "text": told}], "images": [{"caption": text, "notices": [told], "undo": None}],
    }  # fmt: skip
    assert said_in({"masks": {"count": 1, "unused": text}}) == {"masks": {"count": 1, "unused": told}}
    for error in (ConfigError([text]), DatasetError([text])):
        assert error.problems == [text], "messages themselves stay English"


def test_languages_under_another_name_get_the_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"ja_JP": ["pack.json"], "zh_CN": ["pack.json"], "de": ["pack.json"]}
    package = ModuleType("modules")
    parts = {
        "localization": SimpleNamespace(localizations=files),
        "shared": SimpleNamespace(opts=SimpleNamespace(localization="ja_JP")),
    }
    for name, part in parts.items():
        setattr(package, name, part)
    monkeypatch.setitem(sys.modules, "modules", package)
    monkeypatch.delitem(sys.modules, "lib_lora.hosts.webui_languages", raising=False)
    languages = importlib.import_module("lib_lora.hosts.webui_languages")
    monkeypatch.delitem(sys.modules, "lib_lora.hosts.webui_languages")
    for _ in range(2):
        languages.share_with_same_languages()
    assert files == {"ja_JP": [str(LABELS / "ja.json"), "pack.json"], "zh_CN": ["pack.json"], "de": ["pack.json"]}
    assert languages.chosen() == "ja_JP" and Path(files["ja_JP"][0]).is_file()


def test_the_page_says_its_sentences_in_the_language_of_the_webui() -> None:
    if why := missing():
        pytest.skip(why)
    with launch() as browser:
        page = browser.new_page()
        page.set_content("<p id='x'></p>")
        page.evaluate("window.gradioApp = () => document")
        for name in ("words", "dom"):
            page.add_script_tag(path=str(PAGE / f"train_lora_{name}.js"))
        say = "trainLora.words.say('Page {page} of {pages}', {page: 2, pages: '{page}'})"
        assert page.evaluate(say) == "Page 2 of {page}"
        page.evaluate("texts => { window.localization = texts; }", labels("zh_TW"))
        assert page.evaluate(say) == "第 2 / {page} 頁"
        assert page.evaluate("['constructor', 'Stop', 'cat'].map(trainLora.words.exact)") == ["constructor", "停止", "cat"]
        page.evaluate("trainLora.dom.setAttribute(trainLora.dom.find('#x'), 'title', 'Details')")
        page.evaluate("trainLora.dom.setAttribute(trainLora.dom.find('#x'), 'data-job', 'Details')")
        page.evaluate("trainLora.dom.setText(trainLora.dom.find('#x'), 'Details')")
        assert page.inner_html("body").count("詳細") == 2 and 'data-job="Details"' in page.inner_html("body")
