"""The order of the rooms, top first. A room imports only from layers below its own; `tests/test_walls.py` keeps it so."""

LAYERS: tuple[tuple[str, ...], ...] = (
    ("__main__", "hosts.webui_hooks"),
    ("cli", "ui.tab"),
    ("jobs.runner",),
    ("train", "jobs.job"),
    ("training.session", "training.latents", "check", "replay", "replay_data", "output.publish", "output.metadata", "ui.report"),
    ("hosts.webui_host",),
    ("hosts.standalone", "hosts.ldm_model", "hosts.webui_networks"),
    ("events", "training.step", "sample", "output.inspect", "output.card", "ui.uploads", "ui.form", "jobs.memory"),
    ("plan", "training.optimizer", "config.argv"),
    (
        "data.dataset",
        "model.adapter",
        "model.targets",
        "model.attention",
        "objective.loss",
        "hosts.checkpoint",
        "training.failures",
        "training.precision",
    ),
    ("data.images", "model.base", "model.conditioning", "model.surgery", "objective.noise", "output.lora_file"),
    ("data.buckets", "data.captions", "data.order", "data.tokens", "config.rules", "config.kohya", "output.atomic"),
    ("config.groups", "config.names", "data.sizes", "randomness"),
    ("config.options",),
    ("errors",),
)
