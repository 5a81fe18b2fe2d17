"""Options of captions and their tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora.config.declaration import ReadIf, above_zero, option

TokenLength = Literal["75", "150", "225"]
TokenRule = Literal["kohya", "webui"]
TAGS_STAY = "tags are neither shuffled nor dropped"


@dataclass(frozen=True)
class TextConfig:
    """Captions and their tokens."""

    trigger: str = option(
        "",
        label="Trigger word",
        kohya=None,
        row=(2, 2),
        placeholder="ohwx_cat",
        set_by="person",
        metadata="modelspec.trigger_phrase",
        help="A word that the model does not know, such as ohwx_cat. It is put at the start of every caption; use it in prompts "
        "to get the subject.",
    )
    caption_extension: str = option(
        ".txt",
        label="Caption files",
        help="Extension of the caption files next to the images. With .txt, .caption is read too.",
    )
    filename_captions: bool = option(
        False,
        label="File names as captions",
        kohya=None,
        help="Uses an image's file name as its caption if it has no caption file.",
    )
    caption_prefix: str = option(
        "",
        label="Caption prefix",
        in_kohya_form=False,
        help="Text before every caption.",
    )
    caption_suffix: str = option(
        "",
        label="Caption suffix",
        in_kohya_form=False,
        help="Text after every caption.",
    )
    enable_wildcard: bool = option(
        False,
        label="Wildcards",
        in_kohya_form=False,
        help="In captions, {red|blue} becomes one of the two, at random each time; of several lines one is used.",
    )
    shuffle_caption: bool = option(
        False,
        label="Shuffle tags",
        metadata="ss_shuffle_caption",
        help="Shuffles the tags of a caption each time. For captions that are lists of tags.",
    )
    keep_tokens: int = option(
        0,
        label="Tags kept in front",
        between=(0, 255),
        metadata="ss_keep_tokens",
        read_if=ReadIf(lambda text: text.tags_move, TAGS_STAY),
        help="This many tags at the start are neither shuffled nor dropped. The trigger word never is.",
    )
    keep_tokens_separator: str = option(
        "",
        label="Separator of kept tags",
        in_kohya_form=False,
        read_if=ReadIf(lambda text: text.tags_move, TAGS_STAY),
        help="Tags before this text, such as |||, are neither shuffled nor dropped, nor are those after a second one.",
    )
    caption_separator: str = option(
        ",",
        label="Tag separator",
        in_kohya_form=False,
        read_if=ReadIf(lambda text: text.tags_move or bool(text.secondary_separator), TAGS_STAY),
        help="The text between tags.",
    )
    secondary_separator: str = option(
        "",
        label="Inner separator",
        in_kohya_form=False,
        help="Tags joined by this text, such as ;;;, are shuffled and dropped as one, and separated afterwards.",
    )
    caption_dropout_rate: float = option(
        0.0,
        label="Caption dropout",
        between=(0.0, 1.0),
        metadata="ss_caption_dropout_rate",
        help="Share of the images that is trained without a caption, so that the style does not depend on it.",
    )
    caption_dropout_every_n_epochs: int = option(
        0,
        label="Dropout epochs",
        between=(0, 100000),
        metadata="ss_caption_dropout_every_n_epochs",
        help="Trains every n-th epoch without captions; 0 is off.",
    )
    caption_tag_dropout_rate: float = option(
        0.0,
        label="Tag dropout",
        between=(0.0, 1.0),
        in_kohya_form=False,
        metadata="ss_caption_tag_dropout_rate",
        help="Share of the tags that is dropped at random each time.",
    )
    token_warmup_min: int = option(
        1,
        label="Warm-up tags",
        between=(1, 255),
        in_kohya_form=False,
        read_if=above_zero("token_warmup_step"),
        help="Number of tags at the first step of the tag warm-up.",
    )
    token_warmup_step: float = option(
        0.0,
        label="Tag warm-up",
        between=(0.0, 10000000.0),
        in_kohya_form=False,
        help="All tags are used after this many steps, or this share of all steps if below 1; 0 uses all from the start.",
    )
    clip_skip: int = option(
        1,
        label="Clip skip",
        between=(1, 12),
        slider=1,
        metadata="ss_clip_skip",
        none_by_default=True,
        help="Uses the text encoder's n-th layer from the end. 1 for most models, 2 for many anime models.",
    )
    max_token_length: TokenLength = option(
        "75",
        label="Caption length",
        metadata="ss_max_token_length",
        none_by_default=True,
        help="Maximum number of tokens of a caption. More tokens make every step slower.",
    )
    token_rule: TokenRule = option(
        "kohya",
        label="Long captions",
        kohya=None,
        help="How captions of more than 75 tokens are split: as in sd-scripts, or at commas, as the webui splits prompts.",
    )
    weighted_captions: bool = option(
        False,
        label="Weighted captions",
        help="Reads (word:1.2) and [word] in captions as the webui does in prompts.",
    )

    @property
    def tags_move(self) -> bool:
        """Whether captions are split into tags."""
        return bool(self.shuffle_caption or self.token_warmup_step or self.caption_tag_dropout_rate)
