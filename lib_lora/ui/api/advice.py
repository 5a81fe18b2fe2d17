"""Advice over HTTP: settings that follow from images, model and memory, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from fastapi import HTTPException

from lib_lora.advice.derive import derive
from lib_lora.advice.situation import FAST, NORMAL, THOROUGH, Kind
from lib_lora.check import look
from lib_lora.config.groups import TrainConfig, options_by_name, read_config
from lib_lora.config.options import in_words
from lib_lora.config.presets import Choice
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.host import Host
from lib_lora.ui.advised import fields, situation_of
from lib_lora.ui.api.asked import asked_settings
from lib_lora.ui.api.serving import Call, Routes

KINDS = get_args(Kind)


class AdviceRoute:
    """`POST advice`.

    Args:
        host: what is trained on.
        hides_folders: refuse settings that name folders or files of the machine.
    """

    def __init__(self, catalogue: Catalogue, host: Host, *, hides_folders: bool) -> None:
        self._catalogue, self._host, self._hides_folders = catalogue, host, hides_folders

    def add_to(self, routes: Routes) -> None:
        """Add the route."""
        routes.add("POST", "/advice", self.advise, ("settings", "dataset", "reg_dataset", "kind", "thoroughness", "chosen"))

    def advise(self, call: Call) -> Any:
        """The settings for a dataset. An option of `settings` that differs from its default and from `chosen` stays as it is.

        `kind`: person, style or object. `thoroughness`: 1 to 5. `chosen`: option -> value of an earlier answer's `fields`.
        """
        kind, thoroughness = call.text("kind", KINDS[0]), call.body.get("thoroughness", NORMAL)
        if kind not in KINDS:
            raise HTTPException(422, f"Field 'kind': must be one of {', '.join(KINDS)}.")
        if isinstance(thoroughness, bool) or thoroughness not in range(FAST, THOROUGH + 1):
            raise HTTPException(422, f"Field 'thoroughness': must be a whole number from {FAST} to {THOROUGH}.")
        data, reg_data = (call.text(name, "") for name in ("dataset", "reg_dataset"))
        config, illegal = asked_settings(call, self._catalogue, data, reg_data, hides_folders=self._hides_folders)
        found = look(config, self._host)
        situation = situation_of(found, self._host.device(), kind=kind, thoroughness=thoroughness)  # type: ignore[arg-type]
        options, chosen = options_by_name(), call.options("chosen")
        pinned = _pinned(config, chosen, {problem.option for problem in illegal})
        chosen = {name: value for name, value in chosen.items() if name in options and name not in pinned}
        derived = derive(situation, pinned)
        kept = [one.name for one in derive(situation).choices if pinned.get(one.name, one.value) != one.value]
        return {
            "choices": [_choice(choice) for choice in derived.choices],
            "fields": fields({**{name: options[name].default for name in chosen}, **derived.settings()}),
            "kept": [{"option": name, "label": options[name].declaration.label} for name in kept],
            "steps": derived.length.steps if derived.length else None,
        }


def _pinned(config: TrainConfig, chosen: Mapping[str, Any], illegal: set[str]) -> dict[str, Any]:
    """Option name -> value of what the user set. An illegal value is none of a choice's."""
    earlier = read_config(chosen)[0]
    return {
        name: config.value(opt)
        for name, opt in options_by_name().items()
        if name not in illegal
        and config.value(opt) != opt.default
        and not (name in chosen and config.value(opt) == earlier.value(opt))
    }


def _choice(choice: Choice) -> dict[str, Any]:
    opt = options_by_name()[choice.name]
    return {"option": choice.name, "label": opt.declaration.label, "note": in_words(opt, choice.value), "text": choice.why}
