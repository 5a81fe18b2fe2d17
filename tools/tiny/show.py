"""Pictures drawn by the embedded tiny checkpoint, on one sheet for the documents.

python -m tools.tiny.show docs/images/tiny.jpg
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from lib_lora.hosts.standalone import StandaloneHost
from lib_lora.tiny import write_tiny
from tools.demo_figures import comparison
from tools.demo_score import draw

PROMPTS = ("a red ball on grass", "a yellow star on sky", "a blue house on gravel", "a green tree on bricks",
           "a white heart on wood", "a purple box on grass", "a tree on sky", "gravel")  # fmt: skip
PER_PROMPT = 8


def main(path: Path) -> None:
    """Draw eight pictures per prompt."""
    with tempfile.TemporaryDirectory() as folder:
        host = StandaloneHost(write_tiny(Path(folder)), Path(folder), torch.device("cpu"))
        with host.borrow_model() as base:
            rows = [(prompt.replace(" on ", "\non "), draw(base, prompt, seeds=PER_PROMPT)) for prompt in PROMPTS]
    path.parent.mkdir(parents=True, exist_ok=True)
    comparison(path, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
