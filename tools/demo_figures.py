"""The demo's two figures: pictures without and with the LoRA beside the photographs, and the loss of every step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from lib_lora.data.images import Pixels

_COLUMNS, _LABEL_PX, _GAP_PX = 8, 150, 4


def comparison(path: Path, rows: Sequence[tuple[str, Sequence[Pixels]]]) -> None:
    """Save rows of pictures, each with its label."""
    side = rows[0][1][0].shape[0] + _GAP_PX
    sheet = Image.new("RGB", (_LABEL_PX + _COLUMNS * side, len(rows) * side + _GAP_PX), "white")
    pen = ImageDraw.Draw(sheet)
    for row, (label, pictures) in enumerate(rows):
        pen.multiline_text((8, row * side + side // 2 - 12), label, fill="black")
        for column, picture in enumerate(pictures[:_COLUMNS]):
            sheet.paste(Image.fromarray(picture), (_LABEL_PX + column * side, row * side + _GAP_PX))
    sheet.save(path)


def loss_chart(path: Path, losses: Sequence[float]) -> None:
    """Save a chart of the losses, and of their running mean over 20 steps."""
    image = Image.new("RGB", (800, 300), "white")
    pen = ImageDraw.Draw(image)
    low, high = min(losses), max(losses)

    def point(step: int, loss: float) -> tuple[float, float]:
        return 60 + 730 * step / max(len(losses) - 1, 1), 10 + 260 * (high - loss) / max(high - low, 1e-9)

    means = [float(np.mean(losses[max(0, i - 19) : i + 1])) for i in range(len(losses))]
    pen.line([point(i, loss) for i, loss in enumerate(losses)], fill=(250, 200, 160))
    pen.line([point(i, loss) for i, loss in enumerate(means)], fill=(234, 88, 12), width=3)
    for loss in (low, high):
        pen.text((8, point(0, loss)[1] - 6), f"{loss:.3f}", fill="black")
    pen.text((60, 280), f"step 1 to {len(losses)}", fill="black")
    image.save(path)
