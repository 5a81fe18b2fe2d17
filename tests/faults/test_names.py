"""Case 48: hostile names through every input; nothing is written outside the folders."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib_lora.cli import main
from lib_lora.errors import ConfigError
from lib_lora.events import Finished
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_entry import Entry
from lib_lora.jobs.queue_listing import job_json
from lib_lora.jobs.queue_store import Store
from lib_lora.jobs.runner import Runner
from lib_lora.kohya.importing import import_file
from tests.faults.writes import outside, writes
from tests.house import HAS_LDM, House, assert_one_sentence

HOSTILE = [
    "../../escaped", "..", ".", "/etc/escaped", "/tmp/escaped", "C:\\escaped", "C:/escaped", "\\\\host\\share\\escaped", "~/escaped",
    "a/b", "a\\b", "NUL", "con.txt", "COM1", "{x}", '{"x":1}', "Addams", "none", "x" * 300, "é" * 51, "x\x00.png", "a\nb", "x\u202egnp",
    ".hidden", "ends.", "%2e%2e%2fescaped", "$HOME", "`id`", "a|b", "a;b", "..\u2215escaped", "\uff0e\uff0e\uff0fescaped",
]  # fmt: skip
SOME = ["../../escaped", "/tmp/escaped", "NUL", "x" * 300, "x\x00.png"]
ODD = ["a..b", "-rf", "é" * 50, "猫 (2)+v1.0"]  # these may be


def refused(told: list[str], name: str) -> None:
    """One sentence on the name, and nothing about anything else."""
    place = re.fullmatch(r"Settings file \(config\): \w+ = '.*?': ", told[0].partition("Name (name): ")[0])
    start = told[0][place.end() :] if place and "\0" in name else told[0]  # where a file's value cannot even be read
    assert len(told) == 1 and start.startswith("Name (name): "), (name, told)
    assert_one_sentence(told[0])


def over(queue: Queue) -> None:
    """Wait for the end of what runs."""
    if queue.runner._thread is not None:
        queue.runner._thread.join()


def around(tmp_path: Path) -> dict[str, int]:
    """Everything beside and above the folders of the run, with the time of its last change."""
    folders = [tmp_path.parent, Path.cwd(), Path("/tmp"), Path("/etc"), Path.home()]
    return {str(path): path.lstat().st_mtime_ns for folder in folders for path in folder.glob("*escaped*")} | {
        str(path): path.lstat().st_mtime_ns for path in tmp_path.rglob("*") if not path.is_dir()
    }


@pytest.mark.case(48)
def test_a_run_of_a_hostile_name(house: House, quick: Any, tmp_path: Path, long: bool, figure: Callable[[str], None]) -> None:
    """A run of each: refused with one sentence; not a file is opened to be written, anywhere."""
    house.run(quick())  # what is made once is there now
    before = around(tmp_path)
    names = HOSTILE if long else HOSTILE[::3]
    for name in names:
        if "\0" in name:  # no settings have it
            with pytest.raises(ConfigError, match="contains a null character"):
                quick(name=name)
            continue
        with writes() as seen:
            run = house.run(quick(name=name, overwrite=True, save_every_n_steps=1, save_state=True))
        refused(run.told, name)
        assert outside(seen) == [] and around(tmp_path) == before, name
    figure(f"{len(names)} names")


@pytest.mark.case(48)
def test_a_name_that_is_odd_and_allowed(house: House, quick: Any) -> None:
    """Dots inside, a dash in front, a hundred bytes: every file that is written lies in the LoRA folder or the work folder."""
    host = house.host
    for name in ODD:
        with writes() as seen:
            run = house.run(quick(name=name, steps=1, save_state=True, sample_every_n_steps=1, sample_prompts="a --s 1"))
        assert run.of(Finished)[0].path == host.lora_folder() / f"{name}.safetensors"
        assert len(seen) > 10 and outside(seen, host.lora_folder(), host.work_folder().parent) == []


@pytest.mark.case(48)
def test_a_state_of_a_hostile_name(house: House, quick: Any, tmp_path: Path) -> None:
    """Resume from takes a name or a folder: of each of these there is none."""
    house.run(quick())
    before = around(tmp_path)
    for name in SOME:
        if "\0" in name:
            with pytest.raises(ConfigError, match="contains a null character"):
                quick(resume=name)
            continue
        with writes() as seen:
            run = house.run(quick(resume=name, overwrite=True))
        assert len(run.told) == 1 and run.told[0].startswith("Resume from (resume): "), (name, run.told)
        assert outside(seen) == [] and around(tmp_path) == before, name


@pytest.mark.case(48)
@pytest.mark.skipif(HAS_LDM, reason="the command line is of the standalone host")
def test_a_hostile_name_on_the_command_line(
    house: House, quick: Any, tmp_path: Path, mini_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`train --name`, and the same in a file of settings, of ours and of kohya's: exit code 2, one sentence, nothing written."""
    flat = {key: value for key, value in quick().to_flat().items() if value not in ("", [], None)}
    flat |= {"checkpoint": str(mini_checkpoint)}
    nameless = {key: value for key, value in flat.items() if key != "name"}
    settings = {name: tmp_path / f"{name}.json" for name in ("plain", "ours", "kohyas")}
    settings["plain"].write_text(json.dumps(nameless))
    around_files = around(tmp_path).keys() | {str(path) for path in settings.values()}
    for name in HOSTILE:
        settings["ours"].write_text(json.dumps({**flat, "name": name}))
        settings["kohyas"].write_text(json.dumps({"output_name": name, "max_train_steps": 1}))
        named = [f"--data={flat['data'][0]}", f"--checkpoint={mini_checkpoint}", f"--out={tmp_path / 'out'}"]
        ways = ([str(settings["plain"]), f"--name={name}"], [str(settings["ours"])], [str(settings["kohyas"]), *named])
        for argv in ways if name in SOME else [ways[len(name) % 3]]:
            with writes() as seen:
                assert main(["train", "--config", *argv]) == 2, name
            refused(capsys.readouterr().err.splitlines(), name)
            assert outside(seen) == [], name
    assert around(tmp_path).keys() == around_files


@pytest.mark.case(48)
def test_a_hostile_name_in_a_file_of_kohyas(tmp_path: Path) -> None:
    """Names and folders of a stranger's settings are left out; where they are kept, a name is refused as any other."""
    path = tmp_path / "kohya.json"
    for name in HOSTILE:
        path.write_text(
            json.dumps({"output_name": name, "output_dir": "../../escaped", "logging_dir": "/etc/escaped", "max_train_steps": 1})
        )
        found = import_file(path)
        assert "name" not in found.flat and "out" not in found.flat, found.flat


@pytest.mark.case(48)
def test_a_hostile_name_in_the_queue_and_the_tab(house: House, quick: Any, tmp_path: Path) -> None:
    """Train in the tab, and a job edited by hand on the disk: refused with a sentence; what is written is the list alone."""
    jobs = tmp_path / "jobs"
    queue = Queue(Runner(house.host), Store(jobs / "queue", jobs / "uploads"))
    for name in SOME:
        if "\0" in name:
            with pytest.raises(ConfigError, match="contains a null character"):
                quick(name=name)
            continue
        with writes() as seen:
            queue.submit(quick(name=name))
            over(queue)
        assert queue.runner.job is not None and queue.entries == (), name
        refused(job_json(queue.runner.job)["problems"], name)
        assert outside(seen, jobs) == [], name
    store, before = Store(jobs / "queue"), around(tmp_path)
    for number, name in enumerate(SOME):
        settings = {**json.loads(json.dumps(quick().to_flat())), "name": name}
        store.add(Entry(f"job{number}", settings, 1.0))
        queue = Queue(Runner(house.host), store)
        with writes() as seen:
            queue.release()
            over(queue)
        (entry,) = queue.entries
        assert entry.state == "failed", entry
        refused(list(entry.problems), name)
        assert outside(seen, jobs) == [], name
        queue.remove(entry.id)
    assert {path: time for path, time in around(tmp_path).items() if "/jobs/" not in path} == before
