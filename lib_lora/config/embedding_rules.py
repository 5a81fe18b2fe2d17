"""Rules of the trigger word's embedding."""

from __future__ import annotations

import re

from lib_lora.config.groups import Rule, TrainConfig, problem, title
from lib_lora.config.options import shown
from lib_lora.errors import Problem

# special characters of the webui's prompts and names of extra networks, and the dots in keys of a file
_FORBIDDEN = set(".,:|()[]{}<>\\#\n")
_COMMANDS = re.compile(r"\b(AND|BREAK)\b")


def vectors_have_a_word(config: TrainConfig) -> Problem | None:
    if config.embedding.embedding_vectors == 0:
        return None
    trigger = config.text.trigger
    if not trigger:
        return problem("embedding_vectors", f"needs a word for the embedding; give a {title('trigger')}, such as ohwx_cat.")
    start = f"got {shown(trigger)}, but a word with an embedding must"
    if _FORBIDDEN & set(trigger) or _COMMANDS.search(trigger):
        return problem(
            "trigger",
            f"{start} not contain any of . , : | ( ) [ ] {{ }} < > \\ # or AND or BREAK, which mean something else in prompts; "
            "choose another word.",
        )
    if not (trigger[0].isalnum() and trigger[-1].isalnum()):  # CLIP's tokenizer joins punctuation, also with a following comma
        return problem("trigger", f"{start} start and end with a letter or digit; choose another word.")
    return None


def schedule_leaves_the_rate(config: TrainConfig) -> Problem | None:
    if config.embedding.embedding_vectors == 0 or config.optimizer.lr_scheduler != "adafactor":
        return None
    return problem(
        "lr_scheduler",
        f"adafactor sets one learning rate for everything, so {title('embedding_lr')} has no effect; choose another, or set "
        f"{title('embedding_vectors')} to 0.",
    )


RULES: tuple[Rule, ...] = (vectors_have_a_word, schedule_leaves_the_rate)
