"""The host for the webui that runs this extension."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lib_lora.host import Host
from lib_lora.hosts.webui_host import WebuiHost
from lib_lora.jobs.queue import Checkpoints


class PageHost(Host, Checkpoints, Protocol):
    """A host with a page: the protocol for tab, routes and queue."""

    def private_folder(self) -> Path:
        """The folder for all files of this extension; its name starts with a dot."""


def host_of_this_webui() -> PageHost:
    """The host for the webui whose `modules` can be imported."""
    return WebuiHost()
