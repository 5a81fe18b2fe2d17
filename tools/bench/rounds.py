"""Rounds of one checkout in its own process: trains the case once for each line of stdin, and answers with a JSON line.

    python rounds.py CASE CHECKPOINT PICTURES OUT      with the checkout as the current folder

It uses only `tools.bench.ours` of the checkout: `load_ldm`, so that the model is loaded once, and `main`, which trains.
"""

from __future__ import annotations

import functools
import importlib
import json
import sys
from pathlib import Path


def main(name: str, paths: list[Path]) -> None:
    """Train one round per line until stdin ends."""
    sys.path[0] = str(Path.cwd())  # instead of this script's folder, which may be of another checkout
    ours = importlib.import_module("tools.bench.ours")
    ours.load_ldm = functools.cache(ours.load_ldm)
    for _ in sys.stdin:
        print(json.dumps(ours.main(name, *paths, count=False)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], [Path(text) for text in sys.argv[2:]])
