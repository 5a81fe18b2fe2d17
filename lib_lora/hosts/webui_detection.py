"""Which webui this is, and the host for it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lib_lora.host import Host
from lib_lora.hosts.webui_host import WebuiHost
from lib_lora.jobs.queue import Checkpoints


class PageHost(Host, Checkpoints, Protocol):
    """A host with a page: what the tab, its routes and its queue need of a webui."""

    def private_folder(self) -> Path:
        """Where everything lies that is ours: a folder that starts with a dot."""
        ...


def host_of_this_webui() -> PageHost:
    """The host for the webui whose `modules` are here."""
    return WebuiHost()
