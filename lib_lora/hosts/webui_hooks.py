"""What the extension registers with the webui: the tab, and its routes."""

from __future__ import annotations

import os
from typing import Any

from fastapi import FastAPI
from modules import script_callbacks, shared

from lib_lora.datasets.captionings import Captionings
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.hosts import webui_missing
from lib_lora.hosts.webui_detection import host_of_this_webui
from lib_lora.hosts.webui_image_tools import WebuiImageTools
from lib_lora.hosts.webui_languages import chosen, share_with_same_languages
from lib_lora.hosts.webui_restart import save_before_a_restart
from lib_lora.hosts.webui_signals import save_before_the_end
from lib_lora.jobs.hiding import hide_pictures
from lib_lora.jobs.kept import DATASETS, TAKEN
from lib_lora.jobs.queue import Queue
from lib_lora.jobs.queue_store import Store
from lib_lora.jobs.runner import Runner
from lib_lora.languages.spoken import follow
from lib_lora.ui.api.datasets import add_dataset_routes
from lib_lora.ui.guard import Guard
from lib_lora.ui.origin import EVERYWHERE, Networks, networks
from lib_lora.ui.routes import add_routes
from lib_lora.ui.tab import TrainTab

PROXIES = "TRAIN_LORA_PROXIES"  # environment variable: addresses or networks, comma-separated, or "all"


def _guard() -> Guard:
    """The guard from the webui's flags. Credentials are parsed as the webui does (`modules.api.api.Api`)."""
    flags = shared.cmd_opts
    pairs = [pair.split(":", 1) for pair in (getattr(flags, "api_auth", None) or "").split(",") if ":" in pair]
    return Guard(
        api_users={name: password for name, password in pairs},
        trust_everybody=bool(getattr(flags, "enable_insecure_extension_access", False)),
        origins=tuple(filter(None, (getattr(flags, "cors_allow_origins", None) or "").split(","))),
        origins_pattern=getattr(flags, "cors_allow_origins_regex", None),
        proxies=_proxies(),
    )


def _proxies() -> Networks:
    """The proxies that the user named. An invalid value counts as all addresses, so that a login is needed."""
    try:
        return networks(os.environ.get(PROXIES, ""))
    except ValueError as error:
        print(
            f"Train LoRA: {PROXIES} contains {str(error)[:80]!r}, which is not an address; every request is treated as coming "
            "from a proxy."
        )
        return EVERYWHERE


# these survive "Reload UI", which runs scripts again but keeps this package
HOST = host_of_this_webui()
RUNNER = Runner(HOST)
GUARD = _guard()
RELOAD_WAIT_S = 20.0
UPLOADS = HOST.private_folder() / "uploads"
hide_pictures(HOST.private_folder())
CATALOGUE = Catalogue(UPLOADS / DATASETS)
CAPTIONINGS = Captionings()
QUEUE = Queue(RUNNER, Store(HOST.private_folder() / "queue", UPLOADS), HOST)


def register() -> None:
    """Register tab, routes and callbacks; called at every start or reload of the UI, while the webui loads its scripts."""
    script_callbacks.on_ui_tabs(_tab)
    script_callbacks.on_app_started(_add_routes)
    script_callbacks.on_before_ui(share_with_same_languages)  # after which the webui makes its page's dictionary
    follow(chosen)
    # the webui's Lora extension then removes and reapplies its patches of torch
    script_callbacks.on_before_reload(lambda: RUNNER.suspend(RELOAD_WAIT_S))
    save_before_the_end(QUEUE)
    save_before_a_restart(QUEUE)
    RUNNER.unsuspend()


def _tab() -> webui_missing.Tabs:
    try:
        blocks = TrainTab(QUEUE, CATALOGUE, UPLOADS / TAKEN, GUARD, hides_folders=_hides_folders()).build()
    except Exception as error:  # noqa: BLE001 - whatever another gradio lacks: the tab says so
        return webui_missing.tabs(error)
    return [(blocks, "Train LoRA", "train_lora")]


def _hides_folders() -> bool:
    return bool(getattr(shared.cmd_opts, "hide_ui_dir_config", False))


def _add_routes(_demo: Any, app: FastAPI) -> None:
    add_routes(app, QUEUE, GUARD)
    tools = WebuiImageTools(may_choose=not _hides_folders())
    add_dataset_routes(app, CATALOGUE, GUARD, tools, CAPTIONINGS, hides_folders=_hides_folders(), host=RUNNER.host)
