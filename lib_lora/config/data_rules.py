"""Rules of images that look at more than one value."""

from __future__ import annotations

from lib_lora.config.groups import Rule

RULES: tuple[Rule, ...] = ()
