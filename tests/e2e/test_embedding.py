"""A LoRA that brings the embedding of its trigger, in the webui itself; and embeddings that the webui has of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.e2e import client
from tests.e2e.server import Server

pytestmark = pytest.mark.e2e

SETTINGS = {
    "trigger": "ohwx cat",
    "embedding_vectors": 2,
    "embedding_lr": 0.05,
    "text_encoder_lr": 0,
    "steps": 5,
    "save_precision": "float",
}
PROMPT = "a photo of ohwx cat"
PROMPTS = [
    PROMPT, "(OHWX cat:1.4), an ohwx dog", "red " * 74 + "ohwx cat, blue", "word " * 60 + "ohwx cat " * 20, "a BREAK ohwx cat", "a dog",
]  # fmt: skip


@pytest.fixture
def trained(server: Server, photos: Path) -> Path:
    """The file of a run with two vectors."""
    job = client.train(server, photos, "pivotal", overwrite=True, **SETTINGS)
    assert job["state"] == "done", job
    return server.lora_folder / "pivotal.safetensors"


@pytest.fixture
def folder(server: Server) -> Iterator[Path]:
    """The webui's own folder of embeddings, empty again afterwards."""
    path = server.data / "embeddings"
    path.mkdir(exist_ok=True)
    yield path
    for file in path.iterdir():
        file.unlink()
    client.generate(server, PROMPT)  # which looks into the folder


def without_bundle(path: Path, name: str) -> Path:
    """The same LoRA alone, as another file."""
    state = {key: value for key, value in load_file(path).items() if not key.startswith("bundle_emb.")}
    assert len(state) == len(load_file(path)) - 1
    save_file(state, path.with_name(f"{name}.safetensors"))
    return path.with_name(f"{name}.safetensors")


def test_the_trigger_means_its_vectors_where_the_lora_is_on(server: Server, trained: Path) -> None:
    """From the file alone, by the webui's own loader, as the trainer read it; and nothing is left of it afterwards."""
    before = client.generate(server, PROMPT)
    for found in server.post("/e2e/words?name=pivotal", PROMPTS)[:-1]:
        print(found)
        assert found["error"] < 1e-5 and found["effect"] > 1e-2
    assert server.post("/e2e/words?name=pivotal", PROMPTS[-1:])[0]["effect"] < 1e-5, "a prompt without the word"
    stripped = without_bundle(trained, "stripped")
    try:
        whole, alone = (client.generate(server, f"{PROMPT} <lora:{name}:1>") for name in ("pivotal", "stripped"))
        other = [client.generate(server, f"a dog <lora:{name}:1>") for name in ("pivotal", "stripped")]
    finally:
        stripped.unlink()
    assert (whole != alone).any() and (other[0] == other[1]).all()
    assert (client.generate(server, PROMPT) == before).all(), "the word means what it did, without the LoRA"


def test_layouts_that_the_webui_reads(server: Server, trained: Path) -> None:
    """The webui's own old key, and a single one of any name, mean the same."""
    state = load_file(trained)
    (key,) = [key for key in state if key.startswith("bundle_emb.")]
    assert key == "bundle_emb.ohwx cat.emb_params" and state[key].shape[0] == 2
    wanted = client.generate(server, f"{PROMPT} <lora:pivotal:1>")
    for number, end in enumerate(("string_to_param.*", "anything")):
        path = trained.with_name(f"layout{number}.safetensors")
        save_file({f"bundle_emb.ohwx cat.{end}" if name == key else name: value for name, value in state.items()}, path)
        try:
            (found,) = server.post(f"/e2e/words?name={path.stem}", [PROMPT])
            assert found["error"] < 1e-5 and found["effect"] > 1e-2
            assert (client.generate(server, f"{PROMPT} <lora:{path.stem}:1>") == wanted).all()
        finally:
            path.unlink()


def test_embeddings_of_the_webuis_own(server: Server, photos: Path, trained: Path, folder: Path) -> None:
    """Read in captions as in prompts, and told; one that has the trigger's name is refused, since the webui prefers it."""
    width = next(value.shape[1] for key, value in load_file(trained).items() if key.startswith("bundle_emb."))
    save_file({"emb_params": torch.randn(3, width) * 0.3}, folder / "table.safetensors")
    (found,) = server.post("/e2e/words?name=pivotal", ["a cup on a Table, ohwx cat"])
    assert found["error"] < 1e-5 and found["effect"] > 1e-2
    job = client.train(server, photos, "beside", **{**SETTINGS, "steps": 1, "caption_suffix": "on a table"})
    assert job["state"] == "done" and "'table' from the webui's embeddings folder" in str(job), job
    wanted = client.generate(server, f"{PROMPT} <lora:pivotal:1>")
    client.generate(server, PROMPT)  # a LoRA that goes takes the embedding of its name along, whosever it is by then
    save_file({"emb_params": torch.randn(1, width)}, folder / "ohwx cat.safetensors")
    assert (client.generate(server, f"{PROMPT} <lora:pivotal:1>") != wanted).any(), "the webui prefers its own"
    job = client.train(server, photos, "refused", **{**SETTINGS, "steps": 1})
    assert job[
        "state"
    ] == "failed" and "'ohwx cat' is the name of the embedding 'ohwx cat' in the webui's embeddings folder" in str(
        job["problems"]
    )
