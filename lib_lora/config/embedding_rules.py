"""Rules of the trigger word's own embedding."""

from __future__ import annotations

import re

from lib_lora.config.groups import Rule, TrainConfig, is_read
from lib_lora.config.options import shown

# the webui's prompt grammar, its names of extra networks, and the dots that part the keys of a file
_FORBIDDEN = set(".,:|()[]{}<>\\#\n")
_COMMANDS = re.compile(r"\b(AND|BREAK)\b")


def vectors_have_a_word(config: TrainConfig) -> str | None:
    if config.embedding.embedding_vectors == 0:
        return None
    trigger = config.text.trigger
    if not trigger:
        return "Embedding vectors (embedding_vectors): need a word to stand for; give a Trigger word (trigger), such as ohwx_cat."
    if _FORBIDDEN & set(trigger) or _COMMANDS.search(trigger):
        return (
            f"Trigger word (trigger): got {shown(trigger)}, but a word with an embedding must have none of . , : | ( ) [ ] {{ }} "
            "< > \\ # and not hold AND or BREAK, which prompts read otherwise; choose another word."
        )
    if not (trigger[0].isalnum() and trigger[-1].isalnum()):  # CLIP reads a row of signs as one, the comma behind it too
        return (
            f"Trigger word (trigger): got {shown(trigger)}, but a word with an embedding must begin and end with a letter or "
            "digit; choose another word."
        )
    return None


def stop_is_a_whole_step(config: TrainConfig) -> str | None:
    value = config.embedding.stop_embedding_training
    if value < 1 or value == int(value) or not is_read(config, "stop_embedding_training"):
        return None
    return f"Stop the embedding (stop_embedding_training): got {value:g}, must be a whole number of steps, or a share below 1."


def schedule_leaves_the_rate(config: TrainConfig) -> str | None:
    if config.embedding.embedding_vectors == 0 or config.optimizer.lr_scheduler != "adafactor":
        return None
    return (
        "Learning rate schedule (lr_scheduler): adafactor makes one learning rate for all, so that Learning rate, embedding "
        "(embedding_lr) has no effect; choose another, or set Embedding vectors (embedding_vectors) to 0."
    )


RULES: tuple[Rule, ...] = (vectors_have_a_word, stop_is_a_whole_step, schedule_leaves_the_rate)
