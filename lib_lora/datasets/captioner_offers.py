"""The captioners that can be chosen, with what can be set for each; a host adds its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_lora.datasets.captioner_fields import MOST_TAGS, SENTENCE, TAGS, UNWANTED, Field, read_values
from lib_lora.datasets.captioners.captioner import Captioner
from lib_lora.datasets.captioners.openai_compatible import LONGEST_SECONDS, MOST_TOKENS, Endpoint, OpenAICompatible
from lib_lora.datasets.captioners.wd14 import Wd14

Make = Callable[[Mapping[str, Any]], Captioner]
EXAMPLE = "http://127.0.0.1:1234/v1"
LONGEST_REASON = 200

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """A captioner that can be chosen.

    `id`: for requests. `make`: from the values of `fields`. `note`: what a user should know before it starts.
    """

    id: str
    name: str
    make: Make
    fields: tuple[Field, ...]
    note: str = ""

    def needs(self) -> str:
        """What is missing on this computer, with the default values, in a sentence; empty if nothing is.

        A captioner that cannot even tell, in a webui without its code, hides no other.
        """
        try:
            return self.make(read_values(self.fields, {})).needs()
        except Exception as error:
            log.warning("%s does not tell what it needs", self.name, exc_info=error)
            why = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
            return f"{self.name} cannot be used in this webui ({why}); choose another captioner."


def wd14_offer(folder: Path, *, may_choose: bool) -> Offer:
    """WD14 with a model in `folder`; with `may_choose` the page may name another folder or file."""
    places = (Field("model", "Model", str(folder), "The ONNX file, or its folder."),) if may_choose else ()
    characters = Field("characters", "Threshold of characters", 0.85, "The least probability of a character's name.")

    def make(values: Mapping[str, Any]) -> Captioner:
        return Wd14(values.get("model", str(folder)), characters=values["characters"])

    return Offer("wd14", "WD14", make, (*places, *TAGS, characters))


def openai_offer() -> Offer:
    """A server with an OpenAI-compatible address."""

    def make(values: Mapping[str, Any]) -> Captioner:
        return OpenAICompatible(Endpoint(**{field.name: values[field.name] for field in own}))

    own = (
        Field("address", "Address", EXAMPLE, "Of a server with a vision model, such as LM Studio, Ollama or llama.cpp."),
        Field("model", "Model", "", "Its name there; empty for the one that is loaded."),
        Field("prompt", "Prompt", Endpoint.prompt, long=True),
        Field("key", "Key", "", "If the server wants one; it is not kept.", secret=True),
        Field("seconds", "Time limit in seconds", Endpoint.seconds, least=1, most=LONGEST_SECONDS),
        Field("most_tokens", "Tokens of an answer", Endpoint.most_tokens, least=1, most=MOST_TOKENS),
    )
    note = "The images are sent to this address, and to nobody else."
    return Offer("openai", "OpenAI-compatible server", make, (*own, *SENTENCE, MOST_TAGS, UNWANTED), note)


def plain_offers(wd14_folder: Path, *, may_choose: bool) -> list[Offer]:
    """The captioners that need no host."""
    return [wd14_offer(wd14_folder, may_choose=may_choose), openai_offer()]
