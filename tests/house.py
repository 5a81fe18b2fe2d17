"""The five criteria of the fault campaign: after a fault the host is as before, and every message is one sentence."""

from __future__ import annotations

import gc
import hashlib
import importlib.util
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from lib_lora.config.groups import TrainConfig
from lib_lora.config.precision import PrecisionConfig
from lib_lora.data.sizes import Size
from lib_lora.errors import TrainLoraError
from lib_lora.events import Event
from lib_lora.files.lora_file import read
from lib_lora.files.state_file import VALUES, read_tensors, read_values
from lib_lora.jobs.job import Job
from lib_lora.jobs.queue_listing import job_json
from lib_lora.jobs.runner import Runner
from lib_lora.output.preview import PreviewRequest, sample
from lib_lora.training.precision import choose_precision

LORAS, PICTURES = {".safetensors", ".pt", ".ckpt"}, {".png"}
HAS_LDM = importlib.util.find_spec("ldm") is not None


@dataclass
class Outcome:
    """A run as it was seen: its events, and what its job shows at the end."""

    events: list[Event]
    job: dict[str, Any]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def told(self) -> list[str]:
        return [*self.job["problems"], *self.job["notes"]]


class House:
    """Runs trainings on a host, as the webui's job does."""

    def __init__(self, host: Any) -> None:
        self.host = host
        self.told: list[str] = []

    def run(self, config: TrainConfig, at: Callable[[Event, Job], None] | None = None) -> Outcome:
        """A run to its end; `at` is called with every event, in the run's own thread."""
        events: list[Event] = []

        class Watched(Job):
            def apply(self, event: Event) -> None:
                super().apply(event)
                events.append(event)
                if at is not None:
                    at(event, self)

            def pause(self) -> None:
                assert at is not None, f"the run stands: {job_json(self)['phase']}"
                super().pause()

        job = Watched(config, self.host.device())
        runner = Runner(self.host)
        runner._job = job
        runner._run(job)
        found = Outcome(events, job_json(job))
        self.told += found.told
        return found


@contextmanager
def house_as_before(host: Any) -> Iterator[House]:
    """Whatever is done meanwhile: host generates, tensors equal, no broken file, lock free, single sentences."""
    before, files, held = first_look(host), contents(host), on_the_gpu(host)
    house = House(host)
    yield house
    assert look(host) == before, "the host is not as before"
    assert on_the_gpu(host) - held < 50 * 2**20, "memory of the GPU is still held"
    for path, content in contents(host).items():
        if files.get(path) != content:
            assert_whole(path)
    assert_no_broken_states(host.work_folder())
    for sentence in house.told:
        assert_one_sentence(sentence)


_pictures: dict[tuple[str, ...], str] = {}  # the fingerprints of a model -> the hash of what it draws


def first_look(host: Any) -> dict[str, str]:
    """As `look`; a model of fingerprints that were seen before draws what it drew then, and is not asked to."""
    found = model_of(host)
    drawn_then = _pictures.get(tuple(found.values()))
    if drawn_then is not None:
        return {"picture": drawn_then, **found}
    seen = look(host)
    _pictures[tuple(model_of(host).values())] = seen["picture"]
    return seen


def look(host: Any) -> dict[str, str]:
    """A picture that the host draws, and the hash of everything that its model is."""
    if not HAS_LDM:
        (picture,) = drawn(host, [PreviewRequest("a cat", Size(64, 64), 2, 1, 7.0)])
        return {"picture": hashlib.sha256(picture).hexdigest(), **model_of(host)}
    from modules import call_queue, shared  # type: ignore[import-not-found]  # the double

    from tests.pins.drawing import draw

    assert call_queue.queue_lock.acquire(False), "the lock is not free"
    try:
        assert shared.state.begun == shared.state.ended
        picture = draw(shared.sd_model, "a cat", seed=1)
    finally:
        call_queue.queue_lock.release()
    return {"picture": hashlib.sha256(picture.tobytes()).hexdigest(), **model_of(host)}


def model_of(host: Any) -> dict[str, str]:
    """The fingerprints of the networks that the host holds."""
    if HAS_LDM:
        from modules import shared  # type: ignore[import-not-found]  # the double

        return {"model": fingerprint(shared.sd_model)}
    with host.borrow_model() as base:
        modules = {"unet": base.unet, "vae": base.vae, **{f"text {i}": e.module for i, e in enumerate(base.text_encoders)}}
    return {name: fingerprint(module) for name, module in modules.items()}


def drawn(host: Any, requests: list[PreviewRequest]) -> list[bytes]:
    """Pictures of the standalone host."""
    with host.borrow_model() as base:
        precision = choose_precision(PrecisionConfig(), base.device, next(base.unet.parameters()).dtype)
        return [sample(base, request, precision).tobytes() for request in requests]


def on_the_gpu(host: Any) -> int:
    """Bytes of CUDA's memory that tensors hold."""
    if host.device().type != "cuda":
        return 0
    gc.collect()
    return torch.cuda.memory_allocated()


def fingerprint(module: torch.nn.Module) -> str:
    """Hash of every parameter and buffer, dtype, device, requires_grad, grad, mode, hooks and replaced forwards."""
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        said = f"{name}{tensor.dtype}{tensor.device}{tensor.requires_grad}{tensor.grad is None}"
        digest.update(said.encode())
        digest.update(tensor.detach().contiguous().view(-1).view(torch.uint8).cpu().numpy())
    for name, child in module.named_modules():
        hooks = len(child._forward_hooks), len(child._forward_pre_hooks), len(child._backward_hooks)
        digest.update(f"{name}{child.training}{'forward' in vars(child)}{hooks}".encode())
    return digest.hexdigest()


def contents(host: Any) -> dict[Path, bytes]:
    """Hash of every file in the LoRA folder and the work folder."""
    folders = [folder for folder in (host.lora_folder(), host.work_folder()) if folder.is_dir()]
    return {
        path: hashlib.sha256(path.read_bytes()).digest() for folder in folders for path in folder.rglob("*") if path.is_file()
    }


def assert_whole(path: Path) -> None:
    """A file that a run left can be read by whoever reads its kind."""
    assert path.suffix not in {".tmp", ".bak", ".part"}, f"{path.name} was left"
    if path.suffix in LORAS:
        tensors, _ = read(path)
        assert tensors and all(bool(torch.isfinite(value.float()).all()) for value in tensors.values()), path
    elif path.suffix in PICTURES:
        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".json":
        assert isinstance(json.loads(path.read_text(encoding="utf-8")), dict), path


def assert_no_broken_states(work: Path) -> None:
    """Every folder that bears a state's name holds a whole one."""
    for values in work.glob(f"*/*-state/{VALUES}"):
        read_tensors(values.parent, read_values(values.parent))


# what a program says of its insides, a text that was not filled in, and two ends in a row
NOT_FOR_PEOPLE = re.compile(
    r"Traceback|File \"|0x[0-9a-f]{4}|<(?:class|function|module|bound|\w+(?:\.\w+)* object)|\{\w*\}|[.,;:] *[.;,](?!\w)"
)
FEWEST_WORDS = 5


def assert_one_sentence(text: str) -> None:
    """Cause and remedy in one line that a person reads: it begins and ends as a sentence, and nothing of the program shows in it."""
    assert text == text.strip() and "\n" not in text, text
    assert text[0].isupper() or text[0].isdigit() or text[0] in "'\"…", text
    assert text[-1] in ".…)" and len(text.split()) >= FEWEST_WORDS, text
    assert not NOT_FOR_PEOPLE.search(re.sub(r"'[^']*'|\"[^\"]*\"", "''", text.replace("...", "…"))), text


def sentences(error: TrainLoraError) -> list[str]:
    """What a user is shown of an error."""
    for text in error.problems:
        assert_one_sentence(text)
    return error.problems
