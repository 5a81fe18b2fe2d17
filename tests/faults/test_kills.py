"""kill -9: nothing unreadable under a final name, and the run resumes bit for bit."""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lib_lora.hosts.standalone import StandaloneHost
from tests.conftest import write_picture
from tests.faults.conftest import load_once
from tests.faults.kills import SAVING, Campaign
from tests.house import look

pytestmark = [pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"), pytest.mark.usefixtures("house")]
Figure = Callable[[str], None]
MakeHost = Callable[[Path], StandaloneHost]


@pytest.fixture(scope="module")
def make_host(shallow_checkpoint: Path, device: torch.device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeHost]:
    """Makes hosts that share one loaded model; what is written, and when, is the same for fewer layers."""
    loaded = load_once(shallow_checkpoint, tmp_path_factory.mktemp("unused"), device)

    def make(out: Path) -> StandaloneHost:
        host = StandaloneHost(shallow_checkpoint, out)
        host._model = loaded
        return host

    gc.collect()
    gc.freeze()  # children need not look through all that was imported
    yield make
    gc.unfreeze()


@pytest.fixture
def house(make_host: Any, tmp_path: Path) -> Iterator[None]:
    """Checks that the host that resumes killed runs is as before, and draws; `Campaign.check` checks files and messages."""
    host = make_host(tmp_path / "house")
    before = look(host)
    yield
    assert look(host) == before, "the host is not as before"


def two_photos(folder: Path) -> Path:
    for number in range(2):
        write_picture(folder / "photos" / "2_blob" / f"{number}.png", 64, 64, seed=number)
    return folder / "photos"


@pytest.fixture(scope="module")
def campaign(make_host: Any, tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    folder = tmp_path_factory.mktemp("kills")
    return Campaign(make_host, two_photos(folder), folder)


@pytest.mark.case(28, 30)
@pytest.mark.timeout(0)
def test_killed_at_random_moments(campaign: Campaign, long: bool, figure: Figure) -> None:
    """Killed at random moments; nothing unreadable, gone on from the newest state to the same losses and tensors."""
    wanted, rng = 200 if long else 20, random.Random(28)
    before = campaign.resumed
    for _ in range(wanted):
        campaign.kill_at_random(rng)
    assert campaign.resumed - before == wanted
    figure(f"{campaign.resumed - before} of {wanted}")


@pytest.mark.case(30)
def test_killed_in_the_middle_of_forty_steps(make_host: Any, tmp_path: Path, long: bool, figure: Figure) -> None:
    """40 steps against 40 killed on the way: losses, learning rates, LoRA, optimizer, moving average, samples are the same."""
    steps = 40 if long else 10
    flat = {
        "steps": steps, "save_every_n_steps": steps // 4, "sample_every_n_steps": steps // 4, "sample_prompts": "a blob --s 2\nred --s 1",
        "batch_size": 2, "lr_scheduler": "cosine", "lr_warmup_steps": 4, "noise_offset": 0.1, "rank_dropout": 0.2,
        "text_encoder_lr": 1e-3, "caption_dropout_rate": 0.3, "loss_type": "huber",
    }  # fmt: skip
    campaign = Campaign(make_host, two_photos(tmp_path), tmp_path, **flat)
    seen = campaign.reference
    assert len({rates for _, rates in seen.steps}) > steps // 2 and len(seen.state) > 3 * len(seen.tensors)
    assert len(seen.pictures) == len(set(seen.pictures.values())) >= 2 * 4
    after = (20, 23, 37, 39) if long else (6,)
    for step in after:
        campaign.kill_after_step(step)
    assert campaign.resumed == len(after)
    figure(
        f"killed after step {', '.join(map(str, after))} of {steps}; {len(seen.state)} tensors of state, {len(seen.pictures)} samples"
    )


@pytest.mark.case(29, 30)
@pytest.mark.timeout(0)
def test_killed_at_every_operation_of_one_save(campaign: Campaign, long: bool, figure: Figure) -> None:
    """Killed at every write, fsync and rename of one save of LoRA, card and state; gone on from bit for bit."""
    points = campaign.points()
    chosen = [number for number, (step, what) in enumerate(points) if step == 2 and (long or what.startswith(SAVING))]
    assert sum(what == "write" for step, what in points if step == 2) == 4 and len(chosen) > 24
    before = campaign.resumed
    for number in chosen:
        campaign.kill_at_point(number)
    assert campaign.resumed - before == len(chosen)
    figure(f"{campaign.resumed - before} of {len(chosen)}")


@pytest.mark.case(29, 30)
@pytest.mark.timeout(0)
def test_killed_while_saving(campaign: Campaign, long: bool, figure: Figure) -> None:
    """Killed in random operations of all saves, in the middle of a write at a random byte; gone on from bit for bit."""
    if not long:
        pytest.skip("in make faults")
    points, rng, before = campaign.points(), random.Random(29), campaign.resumed
    for _ in range(500):
        campaign.kill_at_point(rng.randrange(len(points)))
    assert campaign.resumed - before == 500
    figure(f"{campaign.resumed - before} of 500")


@pytest.mark.case(34)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_power_cut_finds_the_old_or_the_new(campaign: Campaign, figure: Figure) -> None:
    """Replay of all writes: what gets a final name is synced before, with its folder, and nothing older goes before the new one is synced."""
    unsynced: set[str] = set()  # files whose content may be lost
    unnamed: dict[str, str] = {}  # folder -> a name in it that may be lost
    renames = 0
    for what, path, other in campaign.log():
        if what == "write":
            unsynced.add(path)
            unnamed[str(Path(path).parent)] = path
        elif what == "fsync":
            unsynced.discard(path)
            unnamed.pop(path, None)
        elif what == "os.rename":
            renames += 1
            assert not [lost for lost in unsynced if lost == path or lost.startswith(path + "/")], f"{other} may be empty"
            assert path not in unnamed, f"{other} may lack {unnamed[path]}"
            if ".gone" in other or ".old" in other:
                assert Path(path).parent not in map(Path, unnamed), f"{path} goes before its successor is there"
            unnamed[str(Path(other).parent)] = other
        elif what == "os.remove" and not Path(path).name.startswith("."):
            assert str(Path(path).parent) not in unnamed, f"{path} goes before its successor is there"
    assert renames > 10
    figure(f"{renames} renames")


@pytest.mark.case(28, 30)
@pytest.mark.timeout(0)
def test_a_cold_process_is_killed(campaign: Campaign, shallow_checkpoint: Path, long: bool, figure: Figure) -> None:
    """The command line in a process of its own, killed at random moments; gone on from bit for bit."""
    if not long:
        pytest.skip("in make faults")

    def begin(name: str) -> tuple[Path, subprocess.Popen[bytes]]:
        place = campaign.place(name)
        flat = {key: value for key, value in campaign.config(place).to_flat().items() if value not in ("", [], None)}
        settings = place / "settings.json"
        settings.write_text(json.dumps({**flat, "checkpoint": str(shallow_checkpoint)}))
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        return place, subprocess.Popen([sys.executable, "-m", "lib_lora", "train", "--config", str(settings)], env=env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    started = time.monotonic()
    assert begin("cold")[1].wait() == 0
    seconds, rng, before = time.monotonic() - started, random.Random(20), campaign.resumed
    while campaign.resumed - before < 20:
        place, process = begin("cold")
        time.sleep(seconds * rng.uniform(0.2, 1.0))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            campaign.check(place)
    figure("20 of 20")
