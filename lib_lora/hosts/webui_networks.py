"""The interface to the webui's own Lora extension: remove its LoRAs, load ours through it, announce files.

Its modules are found in `sys.modules`; if the extension is disabled, these functions do nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_lora.errors import LoraFileError, ModelError
from lib_lora.files.lora_file import read
from lib_lora.model.embeddings import bundled, without_bundle
from lib_lora.model.layer_names.further import is_further


def take_off(modules: list[nn.Module]) -> None:
    """Restore the checkpoint's weights of `modules` exactly, from the extension's backups.

    Raises:
        ModelError: a LoRA could not be removed from a layer.
    """
    networks = _networks()
    if networks is None:
        return
    with torch.no_grad():
        networks.load_networks([])
        for layer in (layer for module in modules for layer in module.modules()):
            if hasattr(layer, "network_layer_name") and (hasattr(layer, "weight") or hasattr(layer, "in_proj_weight")):
                networks.network_apply_weights(layer)
                if getattr(layer, "network_current_names", ()) != ():
                    raise ModelError(
                        "A LoRA of an earlier prompt cannot be removed from the model; reload the checkpoint and try again."
                    )


def check(path: Path) -> None:
    """Load the LoRA at `path` as a prompt would.

    Raises:
        LoraFileError: the extension cannot read it, or a key of a trained layer matches no layer of the loaded model.
    """
    networks = _networks()
    state, _ = read(path)
    wanted = {name for key in without_bundle(state) if not is_further(name := key.partition(".")[0])}
    if networks is None:
        return
    try:
        with torch.random.fork_rng(devices=[]):  # its layers are initialised before they are filled
            loaded = networks.load_network(path.stem, networks.network.NetworkOnDisk(path.stem, str(path)))
    except (AssertionError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise LoraFileError(f"The webui's Lora extension cannot load the new file ({error}).") from error
    missing = {word.name for word in bundled(state) if word.name not in getattr(loaded, "bundle_embeddings", {})}
    if missing:
        raise LoraFileError(f"The webui's Lora extension does not find the embedding {missing.pop()!r} in the new file.")
    matched = {module.network_key.partition(".")[0] for module in loaded.modules.values()}
    if not wanted <= matched:
        missing = sorted(wanted - matched)
        raise LoraFileError(f"The webui's Lora extension finds no layer for {len(missing)} keys, such as {missing[0]!r}.")


def announce(path: Path) -> None:
    """Make `<lora:NAME:1>` mean the present file: list it, and drop the cache of an older one."""
    networks = _networks()
    if networks is None:
        return
    networks.networks_in_memory.pop(path.stem, None)
    networks.list_available_networks()


def _networks() -> Any | None:
    return sys.modules.get("networks")
