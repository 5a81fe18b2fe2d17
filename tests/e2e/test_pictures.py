"""What txt2img draws before and after a training, with and without the LoRA."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.e2e import client
from tests.e2e.server import Server

pytestmark = pytest.mark.e2e


def test_lora_changes_the_picture_and_nothing_else_does(server: Server, photos: Path) -> None:
    """Same seed: before equals after; with the LoRA it is another picture, again and again the same."""
    before = client.generate(server, client.PROMPT)
    assert client.train(server, photos, "pictures")["state"] == "done"
    assert np.array_equal(client.generate(server, client.PROMPT), before)
    with_lora = client.generate(server, f"{client.PROMPT} <lora:pictures:1>")
    assert _visible_difference(with_lora, before) > 2, "the LoRA's effect cannot be seen"
    assert np.array_equal(client.generate(server, client.PROMPT), before)
    assert np.array_equal(client.generate(server, f"{client.PROMPT} <lora:pictures:1>"), with_lora)
    assert client.lists(server, "pictures")


@pytest.mark.case(46)
def test_overwritten_lora_is_used_at_once(server: Server, photos: Path) -> None:
    """Not the old weights that the webui holds, nor the old file's encoding of the prompt."""
    client.train(server, photos, "twice")
    old = client.generate(server, f"{client.PROMPT} <lora:twice:1>")
    assert client.train(server, photos, "twice", seed=12, overwrite=True)["state"] == "done"
    client.train(server, photos, "reference", seed=12)
    new = client.generate(server, f"{client.PROMPT} <lora:twice:1>")
    assert not np.array_equal(new, old)
    assert np.array_equal(new, client.generate(server, f"{client.PROMPT} <lora:reference:1>"))
    assert not [name for name in client.files_in(server.lora_folder) if name.endswith(".bak")]


@pytest.mark.case(46)
def test_overwritten_lora_is_that_of_a_fresh_process(server: Server, photos: Path) -> None:
    """The LoRA of the last prompt is overwritten: the next picture is, pixel for pixel, that of a webui that was started anew."""
    prompt = f"{client.PROMPT} <lora:applied:1>"
    client.train(server, photos, "applied")
    old = client.generate(server, prompt)
    assert client.train(server, photos, "applied", seed=12, overwrite=True)["state"] == "done"
    new = client.generate(server, prompt)
    server.stop()
    server.log.unlink()
    server.start()
    client.generate(server, client.PROMPT)
    assert not np.array_equal(new, old) and np.array_equal(new, client.generate(server, prompt))


def _visible_difference(a: client.Picture, b: client.Picture) -> float:
    """Mean difference in steps of 1/255."""
    return float(np.abs(a.astype(float) - b.astype(float)).mean())
