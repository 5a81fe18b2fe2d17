"""Runs that train the trigger word's embedding together with the LoRA."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lib_lora.config.groups import TrainConfig
from lib_lora.data.tokens import plain_ids
from lib_lora.errors import ConfigError
from lib_lora.events import Chosen, Event, Finished, StepDone
from lib_lora.files.lora_file import read
from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.model.base import Embedding
from lib_lora.model.embeddings import bundled, without_bundle
from lib_lora.output.inspect import describe
from lib_lora.run_control import RunControl
from lib_lora.train import train
from lib_lora.training.embedding import embedding_notes, start_word
from lib_lora.training.trainer import Trainer
from tests.conftest import small_config
from tests.models import shared_host

TRIGGER = "ohwx_cat"  # three tokens


@pytest.fixture
def host(shallow_checkpoint: Path, tmp_path: Path) -> StandaloneHost:
    return shared_host(shallow_checkpoint, tmp_path)


def config(photos: Path, out: Path, **changes: object) -> TrainConfig:
    return small_config(photos, out, **{"trigger": TRIGGER, "text_encoder_lr": 0, **changes})


def run(config: TrainConfig, host: StandaloneHost) -> tuple[list[Event], Path]:
    events = list(train(config, host, RunControl()))
    assert isinstance(events[-1], Finished) and events[-1].path is not None
    return events, events[-1].path


def losses(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, StepDone)]


def word_of(path: Path) -> Embedding:
    (word,) = bundled(read(path)[0])
    return word


def tokens_of(host: StandaloneHost, text: str) -> torch.Tensor:
    """What the checkpoint itself holds for the tokens of `text`, `[n, width]`."""
    with host.borrow_model() as base:
        (encoder,) = base.text_encoders
        weight = encoder.token_embedding.weight
        assert isinstance(weight, torch.Tensor)
        return weight[plain_ids(base.tokenizer, text)].clone()


def test_it_begins_as_the_trigger_itself_and_moves(host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    """The first step has the loss of a run without; the vocabulary's own vectors stay bit for bit."""
    start = tokens_of(host, TRIGGER)
    assert len(start) == 3
    with host.borrow_model() as base:
        text = {key: value.clone() for key, value in base.text_encoders[0].module.state_dict().items()}
    without, _ = run(config(photos, tmp_path, name="without"), host)
    events, path = run(config(photos, tmp_path, name="with", embedding_vectors=3), host)
    assert losses(events)[0] == losses(without)[0] and losses(events)[1:] != losses(without)[1:]
    word = word_of(path)
    moved = (word.vectors[0] - start).abs()
    assert word.name == TRIGGER and word.vectors[0].shape == start.shape and bool((moved > 0).any(dim=1).all())
    assert 1e-3 < float(moved.max()) < 2e-3, "three steps of AdamW at 5e-4"
    with host.borrow_model() as base:
        now = base.text_encoders[0].module.state_dict()
        assert all(torch.equal(now[key], text[key]) for key in text)
        assert "forward" not in vars(base.text_encoders[0].token_embedding) and base.tokenizer("a").input_ids


def test_it_is_told(host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    """By the run, the metadata, and inspect."""
    flat = {"embedding_vectors": 2, "init_word": "red dog", "stop_embedding_training": 0.5, "steps": 1}
    events, path = run(config(photos, tmp_path, **flat), host)
    assert any(
        "'ohwx_cat' is trained as an embedding with 2 vectors" in event.text for event in events if isinstance(event, Chosen)
    )
    metadata = read(path)[1]
    assert metadata["ss_bundle_embeddings"] == (
        '{"ohwx_cat": {"num_vectors_per_token": 2, "init_word": "red dog", "learning_rate": 0.0005, "stop": 0.5}}'
    )
    found = describe(path)
    assert found["embeddings"] == {TRIGGER: [[2, 64]]} and found["incomplete"] == [] and found["type"] == "LoRA"


def test_the_first_meaning_goes_round(host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    """As sd-scripts' init_word: token after token, and again from the first one."""
    red, dog = tokens_of(host, "red dog")
    with host.borrow_model() as base:
        word = start_word(config(photos, tmp_path, embedding_vectors=3, init_word="red dog"), base)
    assert word is not None and torch.equal(word.vectors[0], torch.stack([red, dog, red]))


def test_the_rate_is_its_own_and_stopping_it_stops_it(host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    flat = {"embedding_vectors": 2, "embedding_lr": 0.25}
    events, path = run(config(photos, tmp_path, name="a", **flat), host)
    rates = [event.learning_rates for event in events if isinstance(event, StepDone)]
    assert rates == [(1e-3, 0.25)] * 3
    _, two = run(config(photos, tmp_path, name="b", stop_embedding_training=2, save_every_n_steps=2, **flat), host)
    middle = tmp_path / "b-step00000002.safetensors"
    assert torch.equal(word_of(two).vectors[0], word_of(middle).vectors[0]), "a file in between holds it, and it stands still"
    assert not torch.equal(word_of(two).vectors[0], word_of(path).vectors[0])
    state, other = (without_bundle(read(each)[0]) for each in (two, middle))
    assert any(not torch.equal(state[key], other[key]) for key in state), "the LoRA goes on"


def test_files_hold_the_moving_average(host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    flat = {"embedding_vectors": 2, "embedding_lr": 0.1, "steps": 2}
    plain, averaged = (word_of(run(config(photos, tmp_path, name=f"ema{d}", ema_decay=d, **flat), host)[1]) for d in (0, 0.9))
    assert not torch.equal(plain.vectors[0], averaged.vectors[0])


def test_a_file_is_gone_on_with(host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    flat = {"embedding_vectors": 2, "embedding_lr": 0.1, "steps": 1}
    _, first = run(config(photos, tmp_path, name="first", **flat), host)
    on = config(photos, tmp_path, name="on", network_weights=str(first), **flat)
    with host.borrow_model() as base:
        word = start_word(on, base)
    assert word is not None and torch.equal(word.vectors[0], word_of(first).vectors[0])
    assert not torch.equal(word_of(run(on, host)[1]).vectors[0], word.vectors[0])


def test_samples_and_measurements_read_the_vectors(
    host: StandaloneHost, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another meaning and nothing else, both change; and measurements follow the vectors."""
    found = []
    flat: dict[str, object] = {
        "embedding_vectors": 2,
        "embedding_lr": 0.5,
        "validation_split": 0.25,
        "validate_every_n_steps": 1,
        "steps": 2,
    }
    flat.update(sample_every_n_steps=2, unet_lr=1e-9, sample_prompts=f"{TRIGGER} --s 1")
    for meaning in ("red dog", "the sea"):
        seen: list[float] = []
        measure = Trainer.heldout_loss
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "heldout_loss", lambda self: seen.append(measure(self)) or seen[-1])  # noqa: B023
            run(config(photos, tmp_path, init_word=meaning, overwrite=True, **flat), host)
        (picture,) = (tmp_path / ".train-lora" / "blob" / "samples").glob("*.png")
        found.append((seen, picture.read_bytes()))
        assert abs(seen[0] - seen[1]) > 1e-5
    assert found[0][0] != found[1][0] and found[0][1] != found[1][1]


@pytest.mark.parametrize("checkpoint", ["mini_sd2", "mini_sdxl"])
def test_other_families(checkpoint: str, photos: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each text encoder has vectors of its own, and all are trained."""
    host = shared_host(request.getfixturevalue(checkpoint), tmp_path)
    flat = {
        "embedding_vectors": 2,
        "gradient_checkpointing": "on",
        "max_token_length": "150",
        "weighted_captions": True,
        "steps": 1,
    }
    _, path = run(config(photos, tmp_path, **flat), host)
    word = word_of(path)
    keys = sorted(key for key in read(path)[0] if key.startswith("bundle_emb"))
    ends = ["clip_g", "clip_l"] if checkpoint == "mini_sdxl" else ["emb_params"]
    assert keys == [f"bundle_emb.{TRIGGER}.{end}" for end in ends]
    with host.borrow_model() as base:
        begun = start_word(config(photos, tmp_path, embedding_vectors=2), base)
    assert begun is not None
    assert all(bool((a != b).any(dim=1).all()) for a, b in zip(word.vectors, begun.vectors))


@pytest.mark.parametrize("flat", [{"full_bf16": True, "mixed_precision": "bf16"}, {"optimizer": "AdamWScheduleFree"},
                                  {"gradient_accumulation_steps": 2, "token_rule": "webui"}], ids=str)  # fmt: skip
def test_together_with_others(flat: dict[str, object], host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    if "optimizer" in flat:
        pytest.importorskip("schedulefree")
    begun = tokens_of(host, TRIGGER)[:2]
    assert not torch.equal(
        word_of(run(config(photos, tmp_path, embedding_vectors=2, steps=1, **flat), host)[1]).vectors[0], begun
    )


class WithWords(StandaloneHost):
    """A host that has embeddings of its own, as the webui."""

    @property
    def own(self) -> tuple[Embedding, ...]:
        draw = torch.Generator().manual_seed(1)
        return (
            Embedding("blob", (torch.randn(3, 64, generator=draw),)),
            Embedding("OHWX_cat", (torch.randn(1, 64, generator=draw),)),
        )

    def lend(self, count: int) -> None:
        with self.borrow_model() as base:
            base.embeddings = self.own[:count]


def test_words_of_the_host_are_read_as_in_its_prompts(shallow_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """Told, and used at every step, also without an embedding of our own."""
    host = WithWords(shallow_checkpoint, tmp_path)
    plain, _ = run(config(photos, tmp_path, name="plain", steps=1), host)
    host.lend(1)
    events, path = run(config(photos, tmp_path, name="words", steps=1), host)
    told = "Captions: 'blob' from the webui's embeddings folder are used as embeddings, as in prompts."
    assert told in [event.text for event in events if isinstance(event, Chosen)]
    assert losses(events) != losses(plain) and bundled(read(path)[0]) == []
    host.lend(0)
    assert losses(run(config(photos, tmp_path, name="again", steps=1), host)[0]) == losses(plain)


def test_a_trigger_that_the_host_has_is_refused(shallow_checkpoint: Path, photos: Path, tmp_path: Path) -> None:
    """Its prompts would use its own; in any case of letters."""
    host = WithWords(shallow_checkpoint, tmp_path)
    host.lend(2)
    with pytest.raises(ConfigError, match=r"'ohwx_cat' is the name of the embedding 'OHWX_cat' in the webui's embeddings folder"):
        list(train(config(photos, tmp_path, embedding_vectors=1), host, RunControl()))
    with host.borrow_model() as base:
        told = embedding_notes(config(photos, tmp_path), ["ohwx_cat, a blob"], base)
    assert len(told) == 1 and "'blob', 'OHWX_cat'" in told[0], "without one of its own it may"


def test_without_the_option_nothing_is_there(host: StandaloneHost, photos: Path, tmp_path: Path) -> None:
    _, path = run(config(photos, tmp_path, steps=1), host)
    state, metadata = read(path)
    assert without_bundle(state).keys() == state.keys() and "ss_bundle_embeddings" not in metadata
    assert "embeddings" not in describe(path)
