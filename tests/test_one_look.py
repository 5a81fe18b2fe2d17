"""Report, Train, queue and command line use one check; nothing is checked or read twice for one request."""

from __future__ import annotations

import random
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora import settle
from lib_lora.check import check, look
from lib_lora.config import rules
from lib_lora.config.groups import TrainConfig, all_options, build_config
from lib_lora.config.options import Option
from lib_lora.data.decoder_main import answer
from lib_lora.data.decoder_process import Readers
from lib_lora.errors import ConfigError, TrainLoraError
from lib_lora.events import Chosen, Finished, Planned
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.run_control import RunControl
from lib_lora.train import train
from tests.conftest import small_config, write_picture
from tests.test_weights import lora, tensors

pytest.importorskip("gradio")
pytest.importorskip("diffusers")
from lib_lora.datasets.catalogue import Catalogue  # noqa: E402
from lib_lora.ui.form import settings_from  # noqa: E402
from lib_lora.ui.guard import Guard  # noqa: E402
from lib_lora.ui.report import list_html  # noqa: E402
from lib_lora.ui.tab import TrainTab  # noqa: E402
from tests.test_tab import answered, queue_of  # noqa: E402

CONFIGURATIONS = 100  # of each family
FIXED = {"data", "out", "checkpoint", "name", "overwrite", "reg_data", "mask_data", "generate_while_training"}
TEXTS: dict[str, tuple[str, ...]] = {
    "optimizer": ("AdamW", "AdamW8bit", "Lion", "AdaFactor", "SGDNesterov", "Prodigy", "no_such.Thing", "torch.optim.Rprop", ""),
    "optimizer_args": ("weight_decay=0.1", "weight_decay", "no_such=1", "betas=(0.9,0.99)", "relative_step=False"),
    "lr_scheduler_type": ("StepLR", "OneCycleLR", "no_such.Thing"),
    "lr_scheduler_args": ("total_steps=2 max_lr=0.1", "step_size=1", "x"),
    "text_encoder_lr": ("", "0", "1e-5", "-1"),
    "block_dims": (",".join(["4"] * 25), ",".join(["4"] * 23), ",".join(["0"] * 25), ",".join(["0"] * 23), "1,2"),
    "down_lr_weight": ("cosine", "zeros", ",".join(["1"] * 12), ",".join(["0"] * 9), "x"),
    "up_lr_weight": ("zeros", "sine", "1,1"),
    "caption_extension": (".txt", "txt", ".caption"),
    "trigger": ("ohwx", "", "a, b"),
    "init_word": ("cat", "\u200b"),
    "resume": ("", "no such state"),
    "sample_prompts": ("a cat --w 64", "--w x"),
}
DRAWN = (
    *TEXTS, "mixed_precision", "full_fp16", "clip_skip", "unet_lr", "v_parameterization", "v_pred_like_loss", "adapter_type",
    "embedding_vectors", "network_weights", "base_weights", "lr_scheduler", "lr_warmup_steps", "validation_split", "resolution",
)  # fmt: skip


def drawn(opt: Option, rng: random.Random, files: list[str]) -> Any:
    """Something that a form may hold for the option; legal more often than not."""
    if opt.name in ("network_weights", "base_weights"):
        return rng.choice(files)
    if opt.name in TEXTS:
        return rng.choice(TEXTS[opt.name])
    if opt.choices is not None:
        return rng.choice(opt.choices)
    if opt.type is bool:
        return rng.random() < 0.5
    if opt.type in (int, float):
        low, high = opt.declaration.between or (0, 4)
        return rng.choice([low, low + 1, min(high, low + 8), (low + min(high, 64)) / 2, low - 1, "x"])
    return rng.choice(["", "x"])


def configurations(seed: int, photos: Path, files: list[str]) -> Iterator[dict[str, Any]]:
    options = {opt.name: opt for opt in all_options() if opt.declaration.place != "none" and opt.name not in FIXED}
    for number in range(CONFIGURATIONS):
        rng = random.Random(f"{seed}/{number}")
        few = rng.sample(DRAWN, rng.randint(0, 3)) + rng.sample(sorted(options), rng.randint(0, 2))
        yield {
            "data": str(photos), "name": f"blob{number}", "trigger": "ohwx", "resolution": 64, "min_bucket_reso": 64, "steps": 3,
            **{name: drawn(options[name], rng, files) for name in few if name in options},
        }  # fmt: skip


def refusals(config: TrainConfig, host: StandaloneHost) -> list[str]:
    """The sentences with which a run refuses, up to what is told once the model is there."""
    events = train(config, host, RunControl())
    try:
        next(event for event in events if isinstance(event, Chosen))
    except TrainLoraError as error:
        return error.problems
    finally:
        events.close()  # type: ignore[attr-defined]
    return []


@pytest.mark.parametrize(("number", "family"), enumerate(("mini_checkpoint", "mini_sd2", "mini_sdxl")))
def test_the_report_tells_exactly_what_train_refuses_with(
    number: int, family: str, photos: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    host = StandaloneHost(request.getfixturevalue(family), tmp_path / "out", torch.device("cpu"))
    tab = TrainTab(
        queue_of(host, tmp_path), Catalogue(tmp_path / ".private" / "datasets"), tmp_path / ".private" / "taken", Guard()
    )
    tab.build()
    unet = {key: value for key, value in tensors("lora_unet_mid_block_attentions_0_proj_in").items()}
    files = [str(tmp_path / "missing.safetensors"), lora(tmp_path, unet, "unfit"), str(photos / "3_blob" / "0.png")]
    legal, told = 0, Counter[str]()
    for flat in configurations(number, photos, files):
        raw = [flat.get(opt.name, "" if opt.type is tuple or opt.default is None else opt.default) for opt in tab._options]
        report = re.sub(" <button.*?</button>", "", answered(tab, tab.report, None, *raw))  # those that mend a problem
        try:
            refused = refusals(build_config(settings_from(tab._options, raw)), host)
        except ConfigError:
            started = answered(tab, tab.start, None, *raw)  # Train's answer, without a job
            assert started.rpartition("<i")[0] == report.rpartition("<i")[0] and "<li>" in started, flat
            told["illegal"] += 1
            continue
        assert report.rpartition("<i")[0].endswith(list_html(refused, "problem")) and ("train-lora-problem" in report) == bool(refused), (
            flat, refused, unescape(report)
        )  # fmt: skip
        legal += not refused
        told.update(text.partition(":")[0] for text in refused)
    assert legal > 10 and told["illegal"] > 10 and len(told) > 10, told
    assert told["Mixed precision (mixed_precision)"], "fp16 on a CPU was one of the four that the report forgot"


def test_a_schedule_that_ends_early_is_reported(mini_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """And a state that is not there, and more layers skipped than there are: nothing waits until somebody presses Train."""
    host = StandaloneHost(mini_checkpoint, tmp_path)
    early = {"lr_scheduler_type": "OneCycleLR", "lr_scheduler_args": ("total_steps=2", "max_lr=0.1")}
    for flat, told in ((early, "ends at step"), ({"resume": "none"}, "neither the folder"), ({"clip_skip": 9}, "lower it")):
        (problem,) = look(small_config(photos, tmp_path, **flat), host).problems
        assert told in problem and f"({problem.option})" in problem


def test_no_rule_runs_twice(mini_sdxl: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a run, from its settings to the model that is lent; nor for a report."""
    asked = Counter[int]()

    def counting(rule: Any) -> Any:
        return lambda *config: asked.update([id(rule)]) or rule(*config)

    monkeypatch.setattr(rules, "RULES", tuple(map(counting, rules.RULES)))
    own = tuple(map(counting, rules.MODEL_RULES))
    monkeypatch.setattr(rules, "MODEL_RULES", own)
    monkeypatch.setattr(settle, "MODEL_RULES", own)
    host = StandaloneHost(mini_sdxl, tmp_path)
    config = small_config(photos, tmp_path, text_encoder_lr="")
    for asks in (lambda: refusals(config, host), lambda: look(config, host).problems):
        asked.clear()
        assert not asks()
        assert set(asked.values()) == {1} and len(asked) == len(rules.RULES) + len(own)


OPENED: list[str] | None = None


def _note(event: str, details: tuple[Any, ...]) -> None:
    if event == "open" and OPENED is not None and isinstance(details[0], str):
        OPENED.append(details[0])


sys.addaudithook(_note)


@contextmanager
def opens() -> Iterator[Counter[str]]:
    """How often this process opens each file meanwhile."""
    global OPENED
    before, OPENED, found = OPENED, list[str](), Counter[str]()
    try:
        yield found
    finally:
        found.update(OPENED)
        OPENED = before


def test_opens_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with opens() as found:
        path.write_bytes(b"")
        path.open().close()
    assert found[str(path)] == 2


def fresh(source: Path, place: Path) -> Path:
    """A file that nobody remembers."""
    place.write_bytes(source.read_bytes())
    return place


def test_files_of_a_request_are_read_once(mini_checkpoint: Path, photos: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """A LoRA to continue from once, a header once, an image once for report and hash, and once for its latents."""
    checkpoint = fresh(mini_checkpoint, tmp_path / "model.safetensors")
    checkpoint.with_suffix(".yaml").write_text("model: {params: {parameterization: eps}}")
    first = small_config(photos, tmp_path, embedding_vectors=1, name="first", save_state=True)
    (*_, finished) = train(first, StandaloneHost(fresh(mini_checkpoint, tmp_path / "other.safetensors"), tmp_path), RunControl())
    assert isinstance(finished, Finished) and finished.path is not None
    images = [fresh(path, path.with_name(f"new{path.name}")) for path in sorted((photos / "3_blob").glob("*.png"))]
    read, real = Counter[str](), Readers.picture
    monkeypatch.setattr(Readers, "picture", lambda self, path: read.update([path.name]) or real(self, path))
    flat = {"network_weights": str(finished.path), "base_weights": [], "embedding_vectors": 1, "save_state": True}
    config = small_config(photos, tmp_path, **flat)
    host = StandaloneHost(checkpoint, tmp_path)
    with opens() as reported:
        assert not look(config, host).problems
    with opens() as run:
        planned = [event for event in train(config, host, RunControl()) if isinstance(event, Planned)]
    assert planned[0].plan.layers
    assert reported[str(finished.path)] == run[str(finished.path)] == 1
    assert reported[str(checkpoint)] == reported[str(checkpoint.with_suffix(".yaml"))] == 1
    assert run[str(checkpoint)] == 2 and run[str(checkpoint.with_suffix(".yaml"))] == 0, "its two hashes, for the file"
    for image in images:
        assert read[image.name] == 1 and reported[str(image)] == 0 and run[str(image)] == 1


def test_an_image_is_read_once_where_it_is_decoded(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp", "a.bmp"):
        path = write_picture(tmp_path / name)
        with opens() as found:
            assert "sha256" in answer(path)
        assert found[str(path)] == 1


def test_a_job_that_waits_may_resume_from_what_the_run_before_it_saves(
    mini_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    host = StandaloneHost(mini_checkpoint, tmp_path)
    check(small_config(photos, tmp_path, resume="later"), host)
    with pytest.raises(ConfigError, match="lower it"):
        check(small_config(photos, tmp_path, resume="later", clip_skip=9), host)
