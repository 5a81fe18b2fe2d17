"""The webui's language, and its dictionaries for languages that other extensions name in another way."""

from __future__ import annotations

from modules import localization, shared

from lib_lora.languages.translation import LABELS, language_of


def chosen() -> str:
    """The name of the localization in the webui's settings."""
    return str(getattr(shared.opts, "localization", None) or "")


def share_with_same_languages() -> None:
    """Add this extension's dictionary to localizations of the same language under another name (`ja_JP`), as their first.

    The webui merges files of the same name only; of several translations of a text the last one counts.
    """
    for name, files in localization.localizations.items():
        language = language_of(name)
        own = str(LABELS / f"{language}.json")
        if language and language != name and own not in files:
            files.insert(0, own)
