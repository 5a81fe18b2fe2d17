"""The tab's own events, called as its page calls them but without a browser: gradio's route, past its queue."""

from __future__ import annotations

from typing import Any

import requests

Cookies = dict[str, str]


def ask_key(url: str, **headers: str) -> requests.Response:
    """What JavaScript asks for right before each event."""
    return requests.post(f"{url}/train-lora/key", headers=headers, timeout=30)


class Events:
    """Those of one page; its description is fetched once."""

    def __init__(self, url: str, cookies: Cookies | None = None) -> None:
        self.url, self._cookies = url, cookies
        self._config: dict[str, Any] = requests.get(f"{url}/config", timeout=60, cookies=cookies).json()

    def press(self, button: str, **values: Any) -> Any:
        """Press a button of ours with the fields as they are but for `values`; what gradio answers."""
        key = ask_key(self.url).json()["key"]
        return self.call(button, self.inputs(button, key=key, **values))

    def inputs(self, button: str, *, key: str = "guessed", **values: Any) -> list[Any]:
        """What the page would send for a button."""
        parts = {part["id"]: part["props"] for part in self._config["components"]}
        event = self._config["dependencies"][self._event(button)]
        given = {f"train_lora_{name}": value for name, value in {**values, "key": key}.items()}
        return [given.get(parts[place].get("elem_id", ""), parts[place].get("value")) for place in event["inputs"]]

    def call(self, button: str, inputs: list[Any], **more: Any) -> Any:
        """The answer to an event with these inputs."""
        body = {"fn_index": self._event(button), "data": inputs, "session_hash": "e2e", **more}
        return requests.post(f"{self.url}/run/predict", json=body, timeout=60, cookies=self._cookies).json()

    def _event(self, button: str) -> int:
        """The number of the event of a button of ours."""
        target = next(part["id"] for part in self._config["components"] if part["props"].get("elem_id") == button)
        return next(number for number, event in enumerate(self._config["dependencies"]) if event["targets"] == [target])
