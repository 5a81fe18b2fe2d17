"""The queue in the webui: which checkpoint a job is for."""

from __future__ import annotations

from typing import Any

from modules import sd_models


class WebuiCheckpoints:
    """See `Checkpoints`. Name and the webui's short hash, so that a file that was exchanged is another checkpoint."""

    def chosen(self) -> str:
        return _text(sd_models.select_checkpoint()) if sd_models.checkpoints_list else ""

    def lent(self) -> str:
        model = sd_models.model_data.sd_model
        return "" if model is None else _text(model.sd_checkpoint_info)


def _text(info: Any) -> str:
    return f"{info.name} [{info.hash}]"
