"""`make bench AGAINST=…`: two checkouts by turns, with fake ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lib_lora.host import Host
from lib_lora.hosts.standalone import StandaloneHost
from tests.house import HAS_LDM
from tools.bench import images
from tools.bench.against import main

PRETENDED = """
import pathlib
STEP, PEAK = {step}, {peak}
JOURNAL = pathlib.Path({journal!r})

def load_ldm(checkpoint):
    print("made a model")
    JOURNAL.open("a").write("loaded {name}\\n")

def main(name, checkpoint, pictures, out, *, count):
    load_ldm(checkpoint)
    JOURNAL.open("a").write("{name}\\n")
    return {{"steps": [STEP, STEP, 9 * STEP], "peak_gb": PEAK}}
"""


@pytest.mark.parametrize(("step", "peak", "code"), [(1.02, 1.02, 0), (0.5, 0.5, 0), (1.04, 1.0, 1), (1.0, 1.04, 1)])
def test_two_checkouts_by_turns(step: float, peak: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each loads its model once; more than 3 per cent slower or larger fails."""
    journal = tmp_path / "journal"
    for name, figures in (("old", (1.0, 1.0)), ("new", (step, peak))):
        room = tmp_path / name / "tools" / "bench"
        room.mkdir(parents=True)
        text = PRETENDED.format(name=name, step=figures[0], peak=figures[1], journal=str(journal))
        (room / "ours.py").write_text(text)
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "sd15-full.safetensors").touch()
    assert main(Path(sys.executable), tmp_path / "old", tmp_path / "build", tmp_path / "new", rounds=3) == code
    assert journal.read_text().split("\n")[:-1] == [
        "loaded old",
        "old",
        "loaded new",
        "new",
        "new",
        "old",
        "old",
        "new",
        "new",
        "old",
    ]
    told = json.loads(capsys.readouterr().out.splitlines()[-1])["against"]
    assert (told["step_ratio"], told["peak_ratio"], told["step_s_now"]) == (step, peak, step)


def test_a_checkout_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "sd15-full.safetensors").touch()
    (tmp_path / "nothing").mkdir()
    with pytest.raises(RuntimeError, match=r"before\.log"):
        main(Path(sys.executable), tmp_path / "nothing", tmp_path / "build", tmp_path / "nothing")
    assert "tools" in (tmp_path / "build" / "before.log").read_text()


def test_the_images_room_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a few small images: that every figure is there; what they are worth is for `make bench` to say."""
    pytest.importorskip("uvicorn")
    for name, value in {"PHOTOS": 4, "BASES": 2, "SIDES": (120, 90), "IMAGES": 5}.items():
        monkeypatch.setattr(images, name, value)
    assert len(set(images.photos())) == 4
    found = images.measure(Path(sys.executable), tmp_path / "build")
    assert all(value >= 0 for value in found.values()) and set(found) == {
        "upload_s", "first_thumbnail_s", "report_after_last_byte_s", "cpu_s", "added_mb", "open_2000_again_s",
        "open_2000_again_cpu_s", "page_of_2000_s",
    }  # fmt: skip
    assert [path.name for path in (tmp_path / "build").iterdir()] == ["5-images"], "what was uploaded is gone"


def test_hosts_answer_all_that_the_protocol_asks() -> None:
    """Nothing but a run asks for some of it, and `make bench` is none that the tests run."""
    asked = {name for name in vars(Host) if not name.startswith("_")}
    assert len(asked) > 10
    hosts: list[type] = [StandaloneHost]
    if HAS_LDM:
        from tools.bench.ours import LdmHost

        hosts.append(LdmHost)
    assert {host.__name__: asked - set(dir(host)) for host in hosts} == {host.__name__: set() for host in hosts}
