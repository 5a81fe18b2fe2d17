"""Options of images and buckets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora.config.declaration import ReadIf, above_zero, option

Interpolation = Literal["auto", "area", "lanczos", "bicubic", "bilinear", "nearest", "box"]
WITH_BUCKETS = ReadIf(lambda data: data.enable_bucket, "{enable_bucket} is off")
WITH_HELD_OUT = above_zero("validation_split")


@dataclass(frozen=True)
class DataConfig:
    """Images and buckets."""

    data: tuple[str, ...] = option(
        (),
        label="Image folder",
        kohya="train_data_dir",
        row=(1, 1),
        lines=8,
        placeholder="folder on the computer that runs the webui",
        is_path="folder",
        not_inherited="A folder of another computer; choose the images in Image folder (data).",
        affects="files",
        help="A folder of images, or the parent of folders named N_name (each image is repeated N times per epoch). For several "
        "folders, one per line; FOLDER|N repeats its images N times.",
    )
    resolution: int = option(
        512,
        label="Resolution",
        between=(64, 2048),
        row=(4, 1),
        slider=8,
        help="Training resolution in pixels, a multiple of 8. Images are scaled and cropped to about this area. 512 is usual, "
        "1024 for SDXL.",
    )
    batch_size: int = option(
        1,
        label="Batch size",
        kohya="train_batch_size",
        between=(1, 64),
        row=(4, 2),
        slider=1,
        metadata="ss_batch_size_per_device",
        help="Images per step. A larger batch trains more smoothly, needs more memory and makes fewer steps.",
    )
    repeats: int = option(
        10,
        label="Repeats",
        kohya=None,
        between=(1, 10000),
        row=(3, 2),
        help="How often each image is repeated per epoch, unless the folder's name gives the number (N_name).",
    )
    enable_bucket: bool = option(
        True,
        label="Aspect ratio buckets",
        metadata="ss_enable_bucket",
        help="Sorts images into buckets by aspect ratio, so that little is cropped. Off: every image is cropped to a square.",
    )
    min_bucket_reso: int = option(
        256,
        label="Smallest bucket side",
        between=(64, 2048),
        read_if=WITH_BUCKETS,
        help="No side of a bucket is shorter than this, in pixels.",
    )
    max_bucket_reso: int = option(
        1024,
        label="Largest bucket side",
        between=(64, 4096),
        read_if=WITH_BUCKETS,
        help="No side of a bucket is longer than this, in pixels.",
    )
    bucket_reso_steps: int = option(
        64,
        label="Bucket step",
        between=(8, 512),
        read_if=WITH_BUCKETS,
        help="Sides of buckets are multiples of this, in pixels; itself a multiple of 8.",
    )
    bucket_no_upscale: bool = option(
        False,
        label="Don't upscale images",
        metadata="ss_bucket_no_upscale",
        read_if=WITH_BUCKETS,
        help="Small images get a bucket of their own size instead of being upscaled.",
    )
    resolution_height: int = option(
        0,
        label="Height",
        kohya=None,
        between=(0, 2048),
        help="Training height in pixels if it differs from the width (Resolution); 0 is square.",
    )
    resize_interpolation: Interpolation = option(
        "auto",
        label="Scaling",
        in_kohya_form=False,
        metadata="ss_resize_interpolation",
        none_by_default=True,
        help="How images are resized. auto: area for downscaling, Lanczos for upscaling.",
    )
    random_crop: bool = option(
        False,
        label="Random crop",
        metadata="ss_random_crop",
        help="Crops a random part of each image every time, instead of the centre; needs Cache latents off.",
    )
    flip_aug: bool = option(
        False,
        label="Flip augmentation",
        metadata="ss_flip_aug",
        help="Mirrors each image half of the time. Not for text or asymmetric faces.",
    )
    color_aug: bool = option(
        False,
        label="Colour augmentation",
        metadata="ss_color_aug",
        help="Changes hue and brightness slightly every time; needs Cache latents off.",
    )
    reg_data: tuple[str, ...] = option(
        (),
        label="Regularisation folder",
        kohya="reg_data_dir",
        lines=8,
        is_path="folder",
        help="Images of the class (other cats), so that the model does not forget it: a folder named N_class, or the parent of "
        "such folders. They are repeated until there are as many as training images, so an epoch has about twice the steps.",
    )
    prior_loss_weight: float = option(
        1.0,
        label="Regularisation weight",
        between=(0.0, 100.0),
        metadata="ss_prior_loss_weight",
        read_if=ReadIf(lambda data: any(path.strip() for path in data.reg_data), "{reg_data} is empty"),
        help="Weight of the loss on regularisation images; 1 counts them like the others.",
    )
    alpha_mask: bool = option(
        False,
        label="Transparency is a mask",
        in_kohya_form=False,
        help="Uses the alpha channel of images as the mask: only opaque parts are learned.",
    )
    masked_loss: bool = option(
        False,
        label="Mask images",
        help="Uses the masks painted in Images, or those in the Mask folder: only bright parts are learned.",
    )
    mask_data: str = option(
        "",
        label="Mask folder",
        kohya="conditioning_data_dir",
        is_path="folder",
        in_kohya_form=False,
        read_if=ReadIf(lambda data: data.masked_loss, "{masked_loss} is off"),
        help="Folder with one mask per image, under the same name; white is learned, black is not.",
    )
    validation_split: float = option(
        0.0,
        label="Validation split",
        between=(0.0, 0.9),
        in_kohya_form=False,
        metadata="ss_validation_split",
        help="Share of the images that is used for validation instead of training; their loss shows when to stop. 0 is off.",
    )
    validation_seed: int = option(
        0,
        label="Validation seed",
        between=(0, 2**32 - 1),
        in_kohya_form=False,
        metadata="ss_validation_seed",
        none_by_default=True,
        read_if=WITH_HELD_OUT,
        help="Decides which images are kept for validation; 0 uses Seed.",
    )
    validate_every_n_steps: int = option(
        0,
        label="Validate every … steps",
        between=(0, 10000000),
        in_kohya_form=False,
        metadata="ss_validate_every_n_steps",
        none_by_default=True,
        affects="files",
        read_if=WITH_HELD_OUT,
        help="Measures the validation loss every this many steps; 0 is off.",
    )
    validate_every_n_epochs: int = option(
        1,
        label="Validate every … epochs",
        between=(0, 100000),
        in_kohya_form=False,
        affects="files",
        read_if=WITH_HELD_OUT,
        help="Measures the validation loss every this many epochs, and at the end; 0 is off.",
    )
    max_validation_steps: int = option(
        0,
        label="Validation batches",
        between=(0, 100000),
        in_kohya_form=False,
        metadata="ss_max_validation_steps",
        none_by_default=True,
        read_if=WITH_HELD_OUT,
        help="Measures the validation loss on at most this many batches; 0 uses all.",
    )
    cache_latents: bool = option(
        True,
        label="Cache latents",
        metadata="ss_cache_latents",
        help="Encodes each image once, before the first step. Off: encodes at every step, which is slow.",
    )
    cache_latents_to_disk: bool = option(
        False,
        label="Cache latents to disk",
        affects="files",
        read_if=ReadIf(lambda data: data.cache_latents, "{cache_latents} is off"),
        help="Keeps the latents in a hidden folder next to the images, so that the next run starts faster.",
    )
    vae_batch_size: int = option(
        1,
        label="Images encoded at once",
        between=(1, 64),
        help="How many images the VAE encodes at once. More is faster on a large GPU, and needs more memory.",
    )

    @property
    def height(self) -> int:
        """Training height in pixels."""
        return self.resolution_height or self.resolution

    @property
    def bucket_range(self) -> tuple[int, int]:
        """Shortest and longest side of buckets, widened to multiples of the step (as in sd-scripts)."""
        step = self.bucket_reso_steps
        return self.min_bucket_reso // step * step, -(-self.max_bucket_reso // step) * step
