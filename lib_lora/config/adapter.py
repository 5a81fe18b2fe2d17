"""Options of the LoRA."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from lib_lora.config.declaration import ReadIf, option

UNSCALED = ("ia3", "diag-oft")  # types without alpha
MULTIPLYING = ("ia3", "diag-oft", "glora")  # types that multiply the checkpoint's own weight
NO_BLOCKS = "neither {block_dims} nor rate factors (down_lr_weight …) are given"
OF_LOKR = ReadIf(lambda adapter: adapter.adapter_type == "lokr", "{adapter_type} is not lokr")


@dataclass(frozen=True)
class AdapterConfig:
    """The LoRA."""

    adapter_type: Literal["lora", "dora", "loha", "lokr", "ia3", "diag-oft", "glora"] = option(
        "lora",
        label="Type",
        kohya=None,
        help="lora works everywhere. dora learns direction and magnitude separately, and is slower. The others are LyCORIS "
        "types. Alpha does not scale ia3, diag-oft or glora; ia3 has no rank, and for diag-oft the rank is the block size.",
    )
    rank: int = option(
        16,
        label="Rank",
        kohya="network_dim",
        between=(1, 1024),
        row=(5, 1),
        metadata="ss_network_dim",
        help="Size of the LoRA. 8 to 32 for a subject, more for a style; file size and memory grow with it.",
    )
    alpha: float = option(
        16.0,
        label="Alpha",
        kohya="network_alpha",
        between=(0.001, 1024),
        row=(5, 2),
        metadata="ss_network_alpha",
        help="The LoRA is scaled by alpha / rank. Usually the rank, or half of it.",
    )
    conv_dim: int = option(
        0,
        label="Rank of convolutions",
        kohya="network_args.conv_dim",
        between=(0, 1024),
        help="Also trains the U-Net's convolutions (LoCon), the 3×3 ones with this rank. For textures and style; 0 is off.",
    )
    conv_alpha: float = option(
        1.0,
        label="Alpha of convolutions",
        kohya="network_args.conv_alpha",
        between=(0.0, 1024),
        read_if=ReadIf(lambda adapter: adapter.trains_convolutions, "convolutions are not trained (conv_dim)"),
        help="Alpha of the 3×3 convolutions; 0 means their rank.",
    )
    train_layers: Literal["all", "attention", "cross-attention"] = option(
        "all",
        label="Which layers of the U-Net",
        kohya=None,
        help="all: every layer of the transformers. attention: only their attention layers. cross-attention: only the layers "
        "that read the prompt.",
    )
    factor: int = option(
        -1,
        label="LoKr: factor",
        kohya="network_args.factor",
        between=(-1, 1024),
        read_if=OF_LOKR,
        help="Size of the smaller of LoKr's two matrices; -1 makes the two as equal as possible. A larger factor makes a smaller "
        "file.",
    )
    full_matrix: bool = option(
        False,
        label="LoKr: whole matrix",
        kohya="network_args.full_matrix",
        read_if=OF_LOKR,
        help="Does not decompose LoKr's larger matrix, whatever the rank.",
    )
    decompose_both: bool = option(
        False,
        label="LoKr: split both",
        kohya="network_args.decompose_both",
        read_if=OF_LOKR,
        help="Also decomposes LoKr's smaller matrix, with the same rank.",
    )
    unit: int = option(
        0,
        label="DyLoRA: unit",
        kohya="network_args.unit",
        between=(0, 1024),
        help="Trains only the first ranks at each step, a random multiple of this number of them, so that the LoRA can be cut "
        "down to a lower rank later (truncate); 0 trains all ranks.",
    )
    network_dropout: float = option(
        0.0,
        label="Dropout",
        between=(0.0, 0.99),
        metadata="ss_network_dropout",
        none_by_default=True,
        help="Share of the LoRA's inner values that is dropped at random at each step, against overfitting; 0 is off.",
    )
    rank_dropout: float = option(
        0.0,
        label="Rank dropout",
        kohya="network_args.rank_dropout",
        between=(0.0, 0.99),
        help="Share of the ranks that is dropped at random at each step; 0 is off.",
    )
    module_dropout: float = option(
        0.0,
        label="Module dropout",
        kohya="network_args.module_dropout",
        between=(0.0, 0.99),
        help="Share of the layers whose LoRA is dropped at random at each step; 0 is off.",
    )
    scale_weight_norms: float = option(
        0.0,
        label="Max norm",
        between=(0.0, 1000.0),
        metadata="ss_scale_weight_norms",
        none_by_default=True,
        help="Scales a layer's LoRA down when its norm exceeds this, against overfitting; 1 is usual, 0 is off.",
    )
    block_dims: str = option(
        "",
        label="Ranks per block",
        kohya="network_args.block_dims",
        help="25 ranks of the U-Net, separated by commas: 12 down blocks, the middle block, 12 up blocks. SDXL has 23: one, 9 "
        "down, 3 middle, 9 up, one. A block with rank 0 is not trained.",
    )
    block_alphas: str = option(
        "",
        label="Alphas per block",
        kohya="network_args.block_alphas",
        read_if=ReadIf(lambda adapter: adapter.has_block_alphas, f"{NO_BLOCKS}, or the type has no alpha"),
        help="As many alphas as there are Ranks per block; used only with those or with rate factors. Empty: Alpha everywhere.",
    )
    conv_block_dims: str = option(
        "",
        label="Ranks of convolutions per block",
        kohya="network_args.conv_block_dims",
        read_if=ReadIf(lambda adapter: adapter.has_block_values, NO_BLOCKS),
        help="Like Ranks per block, for the 3×3 convolutions; used only with those or with rate factors.",
    )
    conv_block_alphas: str = option(
        "",
        label="Alphas of convolutions per block",
        kohya="network_args.conv_block_alphas",
        read_if=ReadIf(
            lambda adapter: adapter.has_block_alphas and bool(adapter.conv_block_dims),
            "{conv_block_dims} are not given, or the type has no alpha",
        ),
        help="Like Alphas per block, for the 3×3 convolutions; used only with Ranks of convolutions per block.",
    )
    down_lr_weight: str = option(
        "",
        label="Rate factors, down",
        kohya="network_args.down_lr_weight",
        help="Factors on the U-Net's learning rate for its 12 down blocks (SDXL: 9), such as 1,1,0.5 (the others get 1); or "
        "cosine, sine, linear, reverse_linear or zeros, with +number to add to each.",
    )
    mid_lr_weight: str = option(
        "",
        label="Rate factor, middle",
        kohya="network_args.mid_lr_weight",
        help="Factor on the U-Net's learning rate for its middle block; up to three for SDXL.",
    )
    up_lr_weight: str = option(
        "",
        label="Rate factors, up",
        kohya="network_args.up_lr_weight",
        help="Like Rate factors, down, for the up blocks.",
    )
    block_lr_zero_threshold: float = option(
        0.0,
        label="Smallest factor",
        kohya="network_args.block_lr_zero_threshold",
        between=(0.0, 100.0),
        read_if=ReadIf(lambda adapter: adapter.has_factors, "no rate factors (down_lr_weight …) are given"),
        help="Blocks with a rate factor up to this are not trained at all.",
    )
    network_weights: str = option(
        "",
        label="Continue from",
        is_path="file",
        help="A LoRA file to continue training from. Its ranks and alphas must match these settings; or turn on Ranks from the "
        "file.",
    )
    dim_from_weights: bool = option(
        False,
        label="Ranks from the file",
        set_by="person",
        not_inherited="Belongs to a file that is not taken over; see Continue from (network_weights).",
        help="Takes ranks and alphas from the file of Continue from; layers that it lacks are not trained.",
    )
    base_weights: tuple[str, ...] = option(
        (),
        label="Merge first",
        lines=8,
        is_path="file",
        not_inherited="Files of another computer; choose yours in Merge first (base_weights).",
        in_kohya_form=False,
        help="Base LoRAs: files that are merged into the model during training. Use the new LoRA together with them.",
    )
    base_weights_multiplier: tuple[str, ...] = option(
        (),
        label="Multipliers",
        lines=8,
        set_by="person",
        not_inherited="Belongs to files that are not taken over; see Merge first (base_weights).",
        in_kohya_form=False,
        read_if=ReadIf(lambda adapter: bool(adapter.base_weights), "{base_weights} is empty"),
        help="One multiplier for each base LoRA in Merge first; 1 where none is given.",
    )

    @property
    def has_factors(self) -> bool:
        """Whether rate factors per block are given."""
        return bool(self.down_lr_weight or self.mid_lr_weight or self.up_lr_weight)

    @property
    def has_block_values(self) -> bool:
        """Whether ranks and alphas are read per block (sd-scripts `create_network`)."""
        return bool(self.block_dims) or self.has_factors

    @property
    def has_block_alphas(self) -> bool:
        """Whether alphas per block are read."""
        return self.has_block_values and self.adapter_type not in UNSCALED

    @property
    def as_read(self) -> AdapterConfig:
        """These settings without the per-block lists that are not read."""
        alphas = self.block_alphas if self.has_block_alphas else ""
        ranks = self.conv_block_dims if self.has_block_values else ""
        conv_alphas = self.conv_block_alphas if ranks and self.has_block_alphas else ""
        if (alphas, ranks, conv_alphas) == (self.block_alphas, self.conv_block_dims, self.conv_block_alphas):
            return self  # asked for every layer: a copy takes longer than all the rest
        return replace(self, block_alphas=alphas, conv_block_dims=ranks, conv_block_alphas=conv_alphas)

    @property
    def trains_convolutions(self) -> bool:
        """Whether the layers of convolutional blocks get adapters (LoCon)."""
        return self.conv_dim > 0 or (self.has_block_values and bool(self.conv_block_dims))
