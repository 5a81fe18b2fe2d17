"""The settings that a request names, with its datasets."""

from __future__ import annotations

from dataclasses import replace

from lib_lora.config.groups import TrainConfig, read_config
from lib_lora.datasets.catalogue import Catalogue
from lib_lora.errors import DatasetError, Problem
from lib_lora.ui.api.serving import Call
from lib_lora.ui.hidden_paths import hidden_path_problems


def asked_settings(
    call: Call, catalogue: Catalogue, data: str, reg_data: str = "", *, hides_folders: bool
) -> tuple[TrainConfig, list[Problem]]:
    """The field `settings` of a request, options by their names as in a settings file, and the problems of illegal values.

    Args:
        data, reg_data: ids of datasets that are added to the settings' own images; empty for none.
        hides_folders: refuse settings that name folders or files of the machine.

    Raises:
        HTTPException: 422, it is no object.
        DatasetError: it names folders, or a dataset does not exist.
    """
    folders = [catalogue.folders(dataset) for dataset in (data, reg_data)]
    config, illegal = read_config(call.options("settings"))
    hidden = hidden_path_problems(config.to_flat()) if hides_folders else []
    if hidden:
        raise DatasetError(hidden)
    own = config.data
    return replace(config, data=replace(own, data=(*own.data, *folders[0]), reg_data=(*own.reg_data, *folders[1]))), illegal
