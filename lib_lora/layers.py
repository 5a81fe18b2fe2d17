"""Which folders and top-level rooms may import which: each imports from layers below its own, top first.

`tests/test_walls.py` holds it, and ARCHITECTURE.md shows it.
"""

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__",),
    ("cli",),
    ("tiny",),
    ("hosts",),
    ("ui",),
    ("jobs",),
    ("train", "estimate"),
    ("check", "output", "replay"),
    ("training",),
    ("settle", "events", "host", "cli_options"),
    ("plan", "model", "objective", "kohya"),
    ("data",),
    ("config", "files", "signals"),
    ("families", "paths", "errors", "sentences", "randomness", "run_control"),
)
