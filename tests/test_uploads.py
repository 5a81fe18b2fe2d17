"""Files that gradio has stored: taken once, by their place alone, and forgotten after a day."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib_lora.ui.uploads import PAGE_S, take_over


def stored(served: Path, name: str, content: bytes = b"x") -> Path:
    path = served / "abc" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_an_upload_moves_to_the_private_folder_and_is_found_there_again(tmp_path: Path) -> None:
    served, taken = tmp_path / "gradio", tmp_path / ".taken"
    sent = stored(served, "a.png", b"picture")
    place = take_over(str(sent), served, taken)
    assert place.name == "a.pn_" and place.read_bytes() == b"picture" and not sent.exists()
    assert take_over(str(sent), served, taken) == place


@pytest.mark.parametrize("where", ["a.json", "gradio/a.json", "gradio/abc/def/a.json", "other/abc/a.json"])
def test_a_file_that_gradio_did_not_store_stays(where: str, tmp_path: Path) -> None:
    own = tmp_path / where
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("{}")
    assert not take_over(str(own), tmp_path / "gradio", tmp_path / ".taken").exists() and own.read_text() == "{}"


def test_old_uploads_are_forgotten(tmp_path: Path) -> None:
    served, taken = tmp_path / "gradio", tmp_path / ".taken"
    old = take_over(str(stored(served, "old.json")), served, taken)
    os.utime(old.parent, (1.0, 1.0))
    os.utime(old, (1.0, 1.0))
    new = take_over(str(stored(served, "new.json")), served, taken)
    assert new.exists() and not old.exists() and PAGE_S == 24 * 3600
