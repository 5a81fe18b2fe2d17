"""The modules that handle a run's settings, samples, states and files, each by itself."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from lib_lora.config.adapter import AdapterConfig
from lib_lora.config.embedding import EmbeddingConfig
from lib_lora.config.embedding_rules import RULES as EMBEDDING_RULES
from lib_lora.config.groups import build_config
from lib_lora.config.lycoris import lycoris_arguments, network_module
from lib_lora.config.rules import RULES, sample_prompts_can_be_read
from lib_lora.config.run import RunConfig
from lib_lora.data.captions import lines_of
from lib_lora.data.folders import NAMED, leads_out, link_problem, named
from lib_lora.data.order import batches_per_epoch, epoch_batches
from lib_lora.data.sizes import Size
from lib_lora.errors import ConfigError, LoraFileError
from lib_lora.estimate.ledger import Ledger
from lib_lora.estimate.meta import meta_model, meta_ops, recomputed
from lib_lora.estimate.phases import Counter, tensor_bytes
from lib_lora.events import SaveFailed
from lib_lora.files.plain_values import StateError
from lib_lora.model.meta_device import EmulatedDevice
from lib_lora.output.lora_writer import write_with_retry
from lib_lora.output.preview import drawn_by_us, png
from lib_lora.output.removal import made_by_us, remove, remove_lora
from lib_lora.output.rescue import in_another_place, rescue, told
from lib_lora.run_control import RunControl
from lib_lora.settle import settle
from lib_lora.training.lr_schedules import loaded, named_class
from lib_lora.training.state_fits import misfits, unplaced
from lib_lora.training.state_rules import checked_tree, layers_in, step_of
from tests.conftest import small_config
from tests.states import Lender, as_written, planned, run_state

CPU, META = torch.device("cpu"), torch.device("meta")


def broken(rules: Any, **flat: Any) -> list[str]:
    """What the rules say of settings."""
    return [said for rule in rules if (said := rule(build_config({"name": "a", **flat})))]


def test_an_embedding_needs_a_word_that_prompts_can_hold() -> None:
    assert broken(EMBEDDING_RULES, trigger="a, b") == [] == broken(EMBEDDING_RULES, trigger="ohwx cat", embedding_vectors=2)
    for trigger, said in (("", "give a Trigger word"), ("a, b", "any of"), ("a BREAK b", "any of"), ("-a", "start and end")):
        (found,) = broken(EMBEDDING_RULES, trigger=trigger, embedding_vectors=2)
        assert said in found
    (found,) = broken(RULES, trigger="a", embedding_vectors=2, stop_embedding_training=2.5)
    assert "got 2.5" in found
    (found,) = broken(EMBEDDING_RULES, trigger="a", embedding_vectors=2, optimizer="AdaFactor", lr_scheduler="adafactor")
    assert "embedding_lr" in found
    assert EmbeddingConfig().embedding_vectors == 0, "off, if nothing is said"


def test_sample_prompts_are_read_where_they_are_drawn() -> None:
    assert (
        RunConfig().sample_prompts == ""
        and broken([sample_prompts_can_be_read], sample_prompts="a cat --w 64", sample_every_n_steps=2) == []
    )
    (found,) = broken([sample_prompts_can_be_read], sample_prompts="a cat --w 100000", sample_every_n_steps=2)
    assert found.startswith("Sample prompts (sample_prompts): ")
    assert broken([sample_prompts_can_be_read], sample_prompts="a cat --w 100000") == [], "nothing draws it"


def test_types_under_lycoris_names() -> None:
    modules = {kind: network_module(AdapterConfig(adapter_type=kind)) for kind in ("lora", "lokr")}
    assert modules == {"lora": "networks.lora", "lokr": "lycoris.kohya"}
    assert network_module(AdapterConfig(unit=2)) == "networks.dylora"
    assert lycoris_arguments(AdapterConfig()) == {}
    dora = lycoris_arguments(AdapterConfig(adapter_type="dora", conv_dim=4, conv_alpha=2))
    assert dora == {"algo": "locon", "dora_wd": "True", "wd_on_output": "False", "conv_dim": "4", "conv_alpha": "2"}
    assert lycoris_arguments(AdapterConfig(adapter_type="loha")) == {"algo": "loha", "preset": "attn-mlp"}


def test_lines_end_where_files_say() -> None:
    assert lines_of("a\r\nb\rc\nd\u2028e\x0bf") == ["a", "b", "c", "d\u2028e\x0bf"]
    assert lines_of("") == [] and lines_of("a\n") == ["a"] and lines_of("\n\na") == ["", "", "a"]


def test_links_out_of_a_folder(tmp_path: Path) -> None:
    root, other = (tmp_path / "root").resolve(), tmp_path / "other"
    root.mkdir()
    other.mkdir()
    (root / "inner").mkdir()
    (root / "out").symlink_to(other)
    (root / "in").symlink_to(root / "inner")
    (root / "loop").symlink_to(root / "loop")
    assert {name: leads_out(root / name, root) for name in ("out", "in", "inner")} == {"out": True, "in": False, "inner": False}
    assert link_problem(["out"], root).startswith("'out' is a link out of 'root'")
    assert link_problem(["a", "b"], root).startswith("'a', 'b' are links")
    assert named([str(n) for n in range(NAMED + 2)]).endswith(f"'{NAMED - 1}' and 2 more")


def test_an_epoch_holds_every_sample_once_in_batches_of_one_size() -> None:
    buckets = {Size(64, 64): range(5), Size(64, 128): range(5, 8)}
    first, again, second, other = (epoch_batches(buckets, 2, seed, epoch) for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0)))
    assert first == again and first != second and first != other
    for batches in (first, second, other):
        assert sorted(sum(batches, [])) == list(range(8)) and len(batches) == batches_per_epoch(buckets, 2) == 5
        assert all(len({index < 5 for index in batch}) == 1 for batch in batches)


def test_bytes_are_counted_while_they_are_alive() -> None:
    known = torch.empty(1000, device=META)
    with Ledger([known]) as ledger:
        first = torch.empty(250, device=META)  # 1000 bytes
        view = first[:10]
        second = known + known  # 4000 bytes
        assert ledger.now == 5000
        del first, second
        assert ledger.now == 1000, "a view holds the whole"
        del view
        assert ledger.now == 0 and ledger.peak == 5000


def test_operators_on_meta_tensors_cast_as_autocast_does() -> None:
    x, weight = torch.empty(2, 4, device=META), torch.empty(3, 4, device=META)
    with meta_ops(EmulatedDevice("cuda", torch.float16)):
        assert F.linear(x, weight).dtype == torch.float16
        assert F.softmax(x.half(), -1).dtype == torch.float32
        q = torch.empty(1, 2, 5, 8, device=META)
        assert F.scaled_dot_product_attention(q, q, q).shape == q.shape
    assert F.linear(x, weight).dtype == torch.float32


def test_a_block_that_is_computed_again_keeps_its_inputs_alone() -> None:
    block = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.Tanh()))).to(META)
    kept = []
    for forward in (block.forward, recomputed(block)):
        x = torch.empty(32, 64, device=META, requires_grad=True)
        with Ledger([*block.parameters(), x]) as ledger:
            y = forward(x)
            kept.append(ledger.now)
            y.sum().backward()
            del y
        assert x.grad is not None and x.grad.shape == x.shape
    assert kept[1] == 32 * 64 * 4 and kept[0] >= 6 * kept[1], "the output alone, else every layer's"


def test_a_step_takes_more_of_more(shallow_checkpoint: Path, tmp_path: Path, photos: Path) -> None:
    pytest.importorskip("diffusers")
    from lib_lora.hosts.standalone import StandaloneHost
    from lib_lora.training.initial_adapters import initial_adapters

    config = small_config(photos, tmp_path, text_encoder_lr=0, train_layers="cross-attention")
    alike = meta_model(StandaloneHost(shallow_checkpoint, tmp_path, CPU).look())
    counter = Counter(config, alike, "cuda", torch.float16, initial_adapters(config, alike))
    lean, plain = (counter.step(Size(64, 64), 1, checkpointing=on) for on in (True, False))
    assert lean.kept < plain.kept < plain.peak
    assert counter.context_bytes() == 77 * 64 * 4, "its last norm is fp32"
    assert counter.encoding(Size(64, 64), 2) > counter.encoding(Size(64, 64), 1) > 0
    assert tensor_bytes([torch.empty(3, dtype=torch.float16), torch.empty(2)]) == 14


def lora(path: Path, **metadata: str) -> Path:
    save_file({"a": torch.ones(1)}, path, metadata)
    return path


def test_only_what_we_made_is_removed(tmp_path: Path) -> None:
    ours = lora(tmp_path / "ours.safetensors", ss_training_comment="x")
    assert not made_by_us(ours)
    assert (
        list(remove_lora(ours)) == [f"{str(ours)!r} was not written by a run of this name and was not removed."] and ours.exists()
    )
    from lib_lora.output.metadata_size import MADE_BY

    lora(ours, **{MADE_BY[0]: f"{MADE_BY[1]} 1", "ss_output_name": "ours"})
    assert made_by_us(ours)
    Image.new("RGB", (8, 8)).save(ours.with_suffix(".png"))
    (said,) = remove_lora(ours)
    assert "did not write" in said and not ours.exists() and ours.with_suffix(".png").exists()
    lora(ours, **{MADE_BY[0]: f"{MADE_BY[1]} 1", "ss_output_name": "another"})
    assert not made_by_us(ours), "it was renamed"
    assert remove(tmp_path / "nothing") is None
    assert "could not be removed" in str(remove(tmp_path))


def test_a_picture_says_who_drew_it(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 16, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(png(pixels))
    assert drawn_by_us(path) and np.array_equal(np.asarray(Image.open(path)), pixels)
    Image.fromarray(pixels).save(tmp_path / "b.png")
    (tmp_path / "c.png").symlink_to(path)
    assert not drawn_by_us(tmp_path / "b.png") and not drawn_by_us(tmp_path / "c.png") and not drawn_by_us(tmp_path / "d.png")


def full() -> Any:
    """A disk that has room at the third time."""
    tries = iter([1, 1, 0])

    def write() -> str:
        if next(tries):
            raise LoraFileError("full") from OSError("full")
        return "written"

    return write


def test_a_disk_that_refuses_is_asked_again() -> None:
    def run(write: Any, *, again: bool) -> tuple[int, Any]:
        told, steps = 0, write_with_retry(write, RunControl(on_write_failed=lambda: again))
        try:
            while True:
                assert isinstance(next(steps), SaveFailed)
                told += 1
        except StopIteration as end:
            return told, end.value

    assert run(full(), again=True) == (2, "written")
    with pytest.raises(LoraFileError, match="full"):
        run(full(), again=False)

    def broken() -> None:
        raise LoraFileError("not finite")

    with pytest.raises(LoraFileError, match="not finite"):
        run(broken, again=True)


def test_a_lora_that_cannot_be_published_is_kept(tmp_path: Path) -> None:
    host: Any = Lender(tmp_path / "loras")
    first, second = (rescue(b"abc", "blob", host, "blob") for _ in range(2))
    assert first == tmp_path / "loras" / "blob.safetensors.rescued" and second == first.with_name("blob-2.safetensors.rescued")
    assert first.read_bytes() == b"abc" and "remove .rescued from" in told(ValueError("odd"), first)
    assert told(LoraFileError("no"), None) == "no"
    host.folder = tmp_path / "file" / "below"
    (tmp_path / "file").touch()
    elsewhere = rescue(b"abc", "blob", host, "blob")
    assert elsewhere is not None and elsewhere.read_bytes() == b"abc" and tmp_path not in elsewhere.parents
    elsewhere.unlink()
    elsewhere.parent.rmdir()
    made: list[Path] = []

    def refused(folder: Path) -> None:
        made.append(folder)
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        in_another_place(refused, tmp_path)
    assert made[0] == tmp_path and not made[1].exists(), "no empty folder is left"


def test_classes_by_name() -> None:
    assert named_class("Optimizer", "torch.optim.SGD", "optimizer", torch.optim.Optimizer) is torch.optim.SGD
    for name in ("torch.nn.Linear", "torch.optim.Nothing", "os.system"):
        with pytest.raises(ConfigError, match="^Optimizer "):
            named_class("Optimizer", name, "optimizer", torch.optim.Optimizer)
    with pytest.raises(ConfigError, match=r"cannot be loaded \(ModuleNotFoundError"):
        loaded("Optimizer", "no_such_module_at_all", "a")


def written(photos: Path, out: Path, **changes: Any) -> tuple[Any, dict[str, Any], Any]:
    """Settings, and values and tensors of a state of a run with them."""
    config = settle(small_config(photos, out, **changes), Lender(out).detected_model())
    return config, *as_written(*run_state(config, planned(config)))


def test_a_whole_state_is_read_and_a_wrong_one_is_told(photos: Path, tmp_path: Path) -> None:
    _, values, tensors = written(photos, tmp_path)
    assert step_of(values) == 2
    tree = checked_tree(values, tensors)
    layers = layers_in(tree["session"])
    assert layers is not None and len(layers) == len(tree["session"]["layers"]) and layers_in({}) is None
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"position": {"step": 0, "epoch": 0}}, "position/step must be a whole number from 1"),
        ({"steps": 1}, "steps must be a whole number from 2"), ({"precision": "fp8"}, "precision must be one of"),
        ({"data": 3}, "data must be a hash"), ({"versions": {}}, "versions lacks torch"),
    ]  # fmt: skip
    for change, said in wrong:
        with pytest.raises(StateError, match=said):
            checked_tree({**values, **change}, tensors)
    with pytest.raises(StateError):
        checked_tree(values, {**tensors, "surplus": torch.ones(1)})


def test_a_state_fits_its_own_settings_alone(photos: Path, tmp_path: Path) -> None:
    config, values, tensors = written(photos, tmp_path)
    tree = checked_tree(values, tensors)
    assert list(misfits(config, tree, "no", 3, CPU)) == [] == list(unplaced(tree, None))
    for changes, said in (
        ({"rank": 4}, "another type or rank"), ({"ema_decay": 0.9}, "moving average"), ({"optimizer": "SGDNesterov"}, "its optimizer"),
        ({"mixed_precision": "bf16"}, "it was trained in no, not in bf16"), ({"full_bf16": True}, "not in bfloat16"),
        ({"embedding_vectors": 2, "trigger": "ohwx"}, "the 2 vectors"), ({"lr_scheduler": "cosine"}, ""),
    ):  # fmt: skip
        other = settle(small_config(photos, tmp_path, **changes), Lender(tmp_path).detected_model())
        found = list(misfits(other, tree, "no", 3, CPU))
        assert (said in found[0]) if said else found == [], (changes, found)


def test_the_package_is_a_program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["lib_lora", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("lib_lora.__main__", run_name="__main__")
    assert caught.value.code == 0 and "train" in capsys.readouterr().out
