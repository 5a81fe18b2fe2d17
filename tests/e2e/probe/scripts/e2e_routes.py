"""Routes for the end-to-end tests alone: they look at, and break, what a browser cannot reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from e2e_probe import faults, host_state, signatures
from fastapi import HTTPException
from modules import call_queue, devices, processing, script_callbacks, shared


def ready() -> bool:
    """Asked last while the tests wait for the start."""
    return True


def fingerprint() -> dict[str, dict[str, str]]:
    """Everything of the host that a training must give back."""
    with call_queue.queue_lock:
        return host_state.fingerprint()


def lora_output(name: str, ours: str = "") -> dict[str, Any]:
    """One LoRA through the webui's own extension, and it or another through our adapters."""
    from e2e_probe import lora_output as room  # it needs the extension under test, which some runs have disabled

    return room.compare(name, ours or name)


def words(name: str, prompts: list[str]) -> list[dict[str, float]]:
    """What prompts mean with one LoRA and its embedding, to the webui and to the trainer."""
    from e2e_probe import words as room

    return room.compare(name, prompts)


def card_problems(mark: str) -> dict[str, Any]:
    """All LoRAs through the webui's card page and its editor."""
    from e2e_probe import cards

    with call_queue.queue_lock:
        return cards.problems(mark)


def step(inputs: str, out: str) -> float:
    """Loss of one prepared training step on the webui's model; the gradients go to the file `out`."""
    from e2e_probe.training_step import loss_and_gradients

    from lib_lora.hosts.webui_host import WebuiHost

    with WebuiHost().borrow_model() as base, devices.autocast():
        return loss_and_gradients(base, Path(inputs), Path(out))


def train(settings: dict[str, Any]) -> str:
    """Start a training without a browser and without the queue; its id."""
    from lib_lora.config.groups import build_config
    from lib_lora.errors import ConfigError
    from lib_lora.hosts.webui_hooks import RUNNER

    try:
        return RUNNER.start(build_config(settings)).id
    except ConfigError as error:
        raise HTTPException(422, error.problems) from error


def queue(settings: dict[str, Any]) -> int:
    """What another person's press of Train does: the place in the queue, 0 for a job that begins."""
    from lib_lora.config.groups import build_config
    from lib_lora.errors import TrainLoraError
    from lib_lora.hosts.webui_hooks import QUEUE

    try:
        return QUEUE.submit(build_config(settings)).place
    except TrainLoraError as error:
        raise HTTPException(422, error.problems) from error


def stop(keep: bool = False) -> bool:
    """Stop the running training, if there is one, without a browser."""
    from lib_lora.hosts.webui_hooks import RUNNER

    RUNNER.stop(keep=keep)
    return True


def state() -> dict[str, Any]:
    """What the webui is doing now; takes no lock."""
    return dict(shared.state.dict())


def hypernetwork(name: str) -> bool:
    """What `<hypernet:NAME:1>` in a prompt leaves on, or nothing."""
    from modules.hypernetworks import hypernetwork as room

    with call_queue.queue_lock:
        shared.reload_hypernetworks()
        room.load_hypernetworks([name] if name else [], [1.0] if name else None)
        assert len(shared.loaded_hypernetworks) == bool(name)
    return True


def kept() -> dict[str, Any]:
    """What the webui keeps of the last prompt, and the checkpoint that it holds and that is selected."""
    with call_queue.queue_lock:
        text2img = processing.StableDiffusionProcessingTxt2Img
        caches = [getattr(text2img, name) for name in ("cached_c", "cached_uc", "cached_hr_c", "cached_hr_uc")]
        return {
            "caches": [[repr(cache[0]), id(cache[1])] for cache in caches],
            "held": shared.sd_model.sd_checkpoint_info.name,
            "selected": shared.opts.sd_model_checkpoint,
        }


def set_fault(name: str) -> bool:
    """Break one thing until `heal`."""
    faults.break_(name)
    return True


def heal() -> bool:
    """Undo all that `set_fault` did."""
    faults.heal()
    return True


def check_names(expected: dict[str, dict[str, Any]]) -> list[str]:
    """What is wrong with a list of names and signatures of the webui; nothing when all is well."""
    with call_queue.queue_lock:
        return signatures.problems(expected)


def reload_ui() -> bool:
    """What the button "Reload UI" does."""
    shared.state.request_restart()
    return True


def _add_routes(_demo: Any, app: Any) -> None:
    gets = {"ready": ready, "fingerprint": fingerprint, "lora-output": lora_output, "step": step, "cards": card_problems}
    gets |= {"kept": kept, "state": state}
    for route, function in gets.items():
        app.add_api_route(f"/e2e/{route}", function, methods=["GET"])
    posts = {"words": words, "train": train, "queue": queue, "stop": stop, "fault": set_fault, "heal": heal, "names": check_names}
    posts |= {"reload-ui": reload_ui, "hypernetwork": hypernetwork}
    for route, function in posts.items():
        app.add_api_route(f"/e2e/{route}", function, methods=["POST"])


script_callbacks.on_app_started(_add_routes)
