"""Things that go wrong, on demand; `heal` puts every one of them back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from modules import call_queue, sd_models, shared

_broken = ExitStack()
SLOW_STEP_S = 0.25
SLOW_START_S = 3.0
FAILS_AT_STEP = 3


def break_(name: str) -> None:
    """Enter the fault called `name`."""
    _broken.enter_context(_FAULTS[name]())


def heal() -> None:
    """Leave all faults."""
    _broken.close()


@contextmanager
def _patched_forwards() -> Iterator[None]:
    """Another extension hangs its own `forward` and a hook on the U-Net, while it has the model, and leaves them there."""
    unet = shared.sd_model.model.diffusion_model
    with call_queue.queue_lock:
        whole, layer = unet.forward, unet.time_embed[0]
        unet.forward = lambda *inputs, **named: whole(*inputs, **named) * 0.5
        hook = layer.register_forward_hook(lambda module, inputs, output: output * 2)
    try:
        yield
    finally:
        with call_queue.queue_lock:
            del unet.forward
            hook.remove()


def _kind(flag: str) -> Callable[[], Any]:
    """The loaded model says that it is of another kind."""
    return lambda: mock.patch.object(shared.sd_model, flag, True)


def _memory_mode(flag: str) -> Callable[[], Any]:
    return lambda: mock.patch.object(shared.cmd_opts, flag, True)


def _no_checkpoint() -> Any:
    return mock.patch.object(sd_models, "checkpoints_list", {})


def _slow_steps() -> Any:
    from lib_lora.training.trainer import Trainer

    return _slowed(Trainer, "step", SLOW_STEP_S)


def _slow_start() -> Any:
    """Whoever presses Train waits for the answer."""
    from lib_lora.jobs.queue import Queue

    return _slowed(Queue, "submit", SLOW_START_S)


def _slowed(owner: type, name: str, seconds: float) -> Any:
    whole = getattr(owner, name)

    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(seconds)
        return whole(*args, **kwargs)

    return mock.patch.object(owner, name, slow)


def _failing_step() -> Any:
    from lib_lora.training.trainer import Trainer

    whole = Trainer.step

    def step(self: Any, batches: Any) -> Any:
        if batches[0].step + 1 == FAILS_AT_STEP:
            raise RuntimeError("e2e: this step fails")
        return whole(self, batches)

    return mock.patch.object(Trainer, "step", step)


def _full_disk() -> Any:
    """Every file that is written under a temporary name first."""
    return mock.patch.object(os, "fsync", mock.Mock(side_effect=OSError(28, "No space left on device")))


def _unloadable_file() -> Any:
    import networks

    return mock.patch.object(networks, "load_network", mock.Mock(side_effect=AssertionError("e2e: cannot be loaded")))


def _replaced_unet() -> Any:
    """As TensorRT's extension offers one for a checkpoint, and the webui's setting "Automatic" takes it."""
    from modules import sd_unet

    option = sd_unet.SdUnetOption()
    option.label, option.model_name = "[TRT] tiny", shared.sd_model.sd_checkpoint_info.model_name
    return mock.patch.object(sd_unet, "unet_options", [option])


def _small_sdxl() -> Any:
    """An SDXL without a NAME.yaml is made by the data folder's sd_xl_base.yaml, not by the webui's own, which is of full size."""
    from modules import paths, sd_models_config

    return mock.patch.object(sd_models_config, "config_sdxl", str(Path(paths.data_path) / "sd_xl_base.yaml"))


_FAULTS: dict[str, Callable[[], Any]] = {
    "slow steps": _slow_steps,
    "slow start": _slow_start,
    "patched forwards": _patched_forwards,
    "failing step": _failing_step,
    "full disk": _full_disk,
    "unloadable file": _unloadable_file,
    "no checkpoint": _no_checkpoint,
    "replaced unet": _replaced_unet,
    "small sdxl": _small_sdxl,
    **{flag: _kind(flag) for flag in ("is_sd3", "is_ssd")},
    **{flag: _memory_mode(flag) for flag in ("lowvram", "medvram")},
}
