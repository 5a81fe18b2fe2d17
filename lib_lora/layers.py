"""The layers of folders and top-level modules, top first: each imports only from layers below its own.

`tests/test_walls.py` enforces this, and ARCHITECTURE.md shows it.
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
    ("training", "datasets", "advice"),
    ("settle", "events", "host", "cli_options"),
    ("plan", "model", "objective", "kohya"),
    ("data", "languages"),
    ("config", "files", "signals"),
    ("families", "paths", "errors", "randomness", "run_control"),
)
