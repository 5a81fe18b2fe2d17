"""A webui of the tests' own: data folder, port, log, start and end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from lib_lora.tiny import write_tiny

ROOT = Path(__file__).resolve().parent.parent.parent
SHOTS = ROOT / "build" / "e2e"
EXTENSION = "sd-webui-train-lora"
# what a person gets who downloads the extension, as far as the webui looks at it
SHIPPED = ("scripts", "lib_lora", "javascript", "localizations", "install.py", "preload.py", "metadata.ini", "style.css")
DEVICE = os.environ.get("WEBUI_DEVICE") or "cpu"
FLAGS = (
    "--skip-prepare-environment", "--skip-torch-cuda-test", "--no-download-sd-model", "--do-not-download-clip", "--skip-version-check",
    "--api",
)  # fmt: skip
DEVICE_FLAGS = {"cpu": ("--use-cpu", "all", "--no-half"), "cuda": ()}  # on a GPU in fp16, the webui's default
START_S = 240
_UP = "Startup time:"  # the last line of every start


@dataclass(frozen=True)
class Webui:
    """Where the webui that is tested lies, and its interpreter."""

    folder: Path
    python: Path


class Server:
    """One running webui. `data` is its data folder, `api_user` name and password of its API, if it has any.

    `python_path`: a folder that its Python looks for modules in.
    """

    def __init__(
        self, webui: Webui, data: Path, *flags: str, api_user: tuple[str, str] | None = None, python_path: Path | None = None
    ) -> None:
        self.data = data
        self._more = {} if python_path is None else {"PYTHONPATH": str(python_path)}
        self._api_user = api_user
        self.lora_folder = data / "models" / "Lora"
        self.uploads = data.parent / "gradio"  # see `_environment`
        self.log = data.parent / f"{data.name}.log"
        self._webui, self._flags = webui, flags
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.url_at("127.0.0.1")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url_at(self, address: str) -> str:
        """The same webui under another address of this machine; it listens there with --listen."""
        return f"http://{address}:{self._port}"

    def start(self) -> None:
        """Returns when the page and the API answer.

        Raises:
            RuntimeError: the webui ended, or takes too long; with the end of its log.
        """
        command = [
            str(self._webui.python),
            "launch.py",
            *FLAGS,
            *DEVICE_FLAGS[DEVICE],
            "--port",
            str(self._port),
            "--data-dir",
            str(self.data),
            *self._flags,
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._webui.folder,
                env={**_environment(self.data.parent), **self._more},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"The webui did not start; the end of {self.log}:\n{self.log_tail()}")
            time.sleep(0.25)

    def stop(self) -> None:
        """End the process that `start` began."""
        if self._process is not None:
            self._process.kill()  # the webui has nothing to save; its own way out takes seconds
            self._process.wait(30)
            self._process = None

    def end_by(self, number: int) -> float:
        """Send a signal as a person or a service does; the seconds until the process is gone."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.ended()

    def ended(self) -> float:
        """Wait until the webui has ended by itself; how many seconds that took."""
        assert self._process is not None
        started = time.monotonic()
        self._process.wait(60)
        self._process = None
        return time.monotonic() - started

    def log_tail(self, lines: int = 60) -> str:
        """The end of the log, without progress bars."""
        written = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip() and "%|" not in line]
        return "\n".join(written[-lines:])

    def starts(self) -> int:
        """How often the UI came up: at the start, and after every reload."""
        return self.log.read_text(errors="replace").count(_UP)

    def get(self, path: str, **options: Any) -> Any:
        """The JSON that a GET answers."""
        return _json(requests.get(self.url + path, timeout=120, auth=self._api_user, **options))

    def bytes_of(self, path: str) -> bytes:
        """The content that a GET answers."""
        answer = requests.get(self.url + path, timeout=120, auth=self._api_user)
        assert answer.ok, f"{answer.status_code} {answer.text[:500]}"
        return answer.content

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON that a POST answers."""
        return _json(requests.post(self.url + path, json=body, timeout=300, auth=self._api_user))

    def _answers(self) -> bool:
        """Asks only once the log says that all is up: a request before that makes the webui crash ("Cannot add middleware")."""
        if not self.starts():
            return False
        try:
            asked = ("/", "/sdapi/v1/options", "/e2e/ready")
            return all(requests.get(self.url + path, timeout=5, auth=self._api_user).ok for path in asked)
        except requests.RequestException:
            return False


def make_data_folder(data: Path, *, extension: bool = True) -> None:
    """A data folder as a person has it: the embedded tiny checkpoint, this extension, and the tests' probe."""
    write_tiny(data / "models" / "Stable-diffusion")
    (data / "models" / "Lora").mkdir(parents=True)
    shutil.copytree(
        Path(__file__).parent / "probe", data / "extensions" / "e2e-probe", ignore=shutil.ignore_patterns("__pycache__")
    )
    if extension:
        copy_extension(data / "extensions" / EXTENSION)


def copy_extension(target: Path) -> None:
    """The files that the webui reads of this repository."""
    target.mkdir(parents=True)
    for name in SHIPPED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, target / name)


def _environment(scratch: Path) -> dict[str, str]:
    """No arguments of somebody's own start script, no network, no trace outside `scratch`.

    One thread: the checkpoint is too small for more, and threads that wait for each other crawl where others use the machine.
    """
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in {"COMMANDLINE_ARGS", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    }
    return {
        **kept, "HF_HOME": str(scratch / "hf_home"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_TEMP_DIR": str(scratch / "gradio"), "MPLCONFIGDIR": str(scratch / "matplotlib"),
        "no_proxy": "127.0.0.1", "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _json(response: requests.Response) -> Any:
    assert response.ok, f"{response.url} answers {response.status_code}: {response.text[:2000]}"
    return response.json()
