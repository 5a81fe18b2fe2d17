"""Options of which images are trained on, and how they are cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lib_lora.config.declaration import ReadIf, option

Interpolation = Literal["auto", "area", "lanczos", "bicubic", "bilinear", "nearest", "box"]
WITH_BUCKETS = ReadIf(lambda data: data.enable_bucket, "Aspect ratio buckets (enable_bucket) is off")
WITH_HELD_OUT = ReadIf(lambda data: data.validation_split > 0, "Validation split (validation_split) is 0")


@dataclass(frozen=True)
class DataConfig:
    """Which images, and how they are cut."""

    data: tuple[str, ...] = option(
        (),
        label="Image folder",
        kohya="train_data_dir",
        row=(1, 1),
        lines=8,
        placeholder="folder on the machine that runs the webui",
        is_path="folder",
        not_inherited="A folder of another machine; choose the images here, in Image folder (data).",
        affects="files",
        help="A folder of images, or the parent of folders named N_name (each image is shown N times per epoch). "
        "Several folders: one a line; FOLDER|N shows its images N times.",
    )
    resolution: int = option(
        512,
        label="Resolution",
        kohya="resolution",
        ge=64,
        le=2048,
        row=(4, 1),
        slider=8,
        help="Training size in pixels; images are scaled and cropped to about this area. A multiple of 8. 512, SDXL 1024.",
    )
    batch_size: int = option(
        1,
        label="Batch size",
        kohya="train_batch_size",
        ge=1,
        le=64,
        row=(4, 2),
        slider=1,
        metadata="ss_batch_size_per_device",
        help="Images per step. Larger is smoother, needs more memory, and makes fewer steps.",
    )
    repeats: int = option(
        10,
        label="Repeats",
        kohya=None,
        ge=1,
        le=10000,
        row=(3, 2),
        help="How often each image is shown per epoch, where the folder's name does not say it (N_name).",
    )
    enable_bucket: bool = option(
        True,
        label="Aspect ratio buckets",
        kohya="enable_bucket",
        metadata="ss_enable_bucket",
        help="Sort images into buckets of similar shape, so that little is cropped. Off: every image is cropped to a square.",
    )
    min_bucket_reso: int = option(
        256,
        label="Smallest bucket side",
        kohya="min_bucket_reso",
        ge=64,
        le=2048,
        read_if=WITH_BUCKETS,
        help="No side of a bucket is shorter than this, in pixels.",
    )
    max_bucket_reso: int = option(
        1024,
        label="Largest bucket side",
        kohya="max_bucket_reso",
        ge=64,
        le=4096,
        read_if=WITH_BUCKETS,
        help="No side of a bucket is longer than this, in pixels.",
    )
    bucket_reso_steps: int = option(
        64,
        label="Bucket step",
        kohya="bucket_reso_steps",
        ge=8,
        le=512,
        read_if=WITH_BUCKETS,
        help="Sides of buckets are multiples of this, in pixels. A multiple of 8.",
    )
    bucket_no_upscale: bool = option(
        False,
        label="Don't upscale images",
        kohya="bucket_no_upscale",
        metadata="ss_bucket_no_upscale",
        read_if=WITH_BUCKETS,
        help="Small images get a bucket of their own size instead of being enlarged.",
    )
    resolution_height: int = option(
        0,
        label="Height",
        kohya=None,
        ge=0,
        le=2048,
        help="Training height in pixels where it is not the width (Resolution); 0 means a square.",
    )
    resize_interpolation: Interpolation = option(
        "auto",
        label="Scaling",
        kohya="resize_interpolation",
        in_kohya_form=False,
        metadata="ss_resize_interpolation",
        none_by_default=True,
        help="How images are scaled. auto: area averaging when shrinking, Lanczos when enlarging.",
    )
    random_crop: bool = option(
        False,
        label="Random crop",
        kohya="random_crop",
        metadata="ss_random_crop",
        help="Cuts a random part of each image anew each time, instead of the centre; needs Cache latents off.",
    )
    flip_aug: bool = option(
        False,
        label="Flip augmentation",
        kohya="flip_aug",
        metadata="ss_flip_aug",
        help="Shows each image mirrored half of the time. Not for text, nor for faces that are not symmetric.",
    )
    color_aug: bool = option(
        False,
        label="Colour augmentation",
        kohya="color_aug",
        metadata="ss_color_aug",
        help="Changes hue and brightness a little each time; needs Cache latents off.",
    )
    reg_data: tuple[str, ...] = option(
        (),
        label="Regularisation folder",
        kohya="reg_data_dir",
        lines=8,
        is_path="folder",
        help="Images of the class (other cats), so that the model does not forget it; a folder named N_class, or the parent "
        "of such. As many are shown as of the others, so that an epoch has about twice the steps.",
    )
    prior_loss_weight: float = option(
        1.0,
        label="Regularisation weight",
        kohya="prior_loss_weight",
        ge=0.0,
        le=100.0,
        metadata="ss_prior_loss_weight",
        read_if=ReadIf(lambda data: any(path.strip() for path in data.reg_data), "there is no Regularisation folder (reg_data)"),
        help="How much the regularisation images count against the others.",
    )
    alpha_mask: bool = option(
        False,
        label="Transparency is a mask",
        kohya="alpha_mask",
        in_kohya_form=False,
        help="Learn only what is opaque in an image; what is transparent does not count.",
    )
    masked_loss: bool = option(
        False,
        label="Mask images",
        kohya="masked_loss",
        help="Learn only what is bright in the mask images of the Mask folder.",
    )
    mask_data: str = option(
        "",
        label="Mask folder",
        kohya="conditioning_data_dir",
        is_path="folder",
        in_kohya_form=False,
        read_if=ReadIf(lambda data: data.masked_loss, "Mask images (masked_loss) is off"),
        help="Folder with one mask image per image, of the same name; white is learned, black is not.",
    )
    validation_split: float = option(
        0.0,
        label="Validation split",
        kohya="validation_split",
        ge=0.0,
        le=0.9,
        in_kohya_form=False,
        metadata="ss_validation_split",
        help="Share of the images that is not trained on; the loss on them shows when to stop. 0 holds none out.",
    )
    validation_seed: int = option(
        0,
        label="Validation seed",
        kohya="validation_seed",
        ge=0,
        le=2**32 - 1,
        in_kohya_form=False,
        metadata="ss_validation_seed",
        none_by_default=True,
        read_if=WITH_HELD_OUT,
        help="Decides which images are held out; 0 takes the seed of the run.",
    )
    validate_every_n_steps: int = option(
        0,
        label="Validate every … steps",
        kohya="validate_every_n_steps",
        ge=0,
        le=10000000,
        in_kohya_form=False,
        metadata="ss_validate_every_n_steps",
        none_by_default=True,
        affects="files",
        read_if=WITH_HELD_OUT,
        help="Measure the loss on validation images every so many steps; 0 does not.",
    )
    validate_every_n_epochs: int = option(
        1,
        label="Validate every … epochs",
        kohya="validate_every_n_epochs",
        ge=0,
        le=100000,
        in_kohya_form=False,
        affects="files",
        read_if=WITH_HELD_OUT,
        help="Measure the loss on validation images every so many epochs, and at the end; 0 does not.",
    )
    max_validation_steps: int = option(
        0,
        label="Validation batches",
        kohya="max_validation_steps",
        ge=0,
        le=100000,
        in_kohya_form=False,
        metadata="ss_max_validation_steps",
        none_by_default=True,
        read_if=WITH_HELD_OUT,
        help="Measure on at most so many batches of validation images; 0 takes all.",
    )
    cache_latents: bool = option(
        True,
        label="Cache latents",
        kohya="cache_latents",
        metadata="ss_cache_latents",
        help="Encodes each image once, before the first step. Off: at every step, which is slow.",
    )
    cache_latents_to_disk: bool = option(
        False,
        label="Cache latents to disk",
        kohya="cache_latents_to_disk",
        affects="files",
        read_if=ReadIf(lambda data: data.cache_latents, "Cache latents (cache_latents) is off"),
        help="Keeps encoded images in a hidden folder beside the images, so that the next run starts faster.",
    )
    vae_batch_size: int = option(
        1,
        label="Images encoded at once",
        kohya="vae_batch_size",
        ge=1,
        le=64,
        help="More is faster on a large GPU, and needs more memory.",
    )

    @property
    def height(self) -> int:
        """Training height in pixels."""
        return self.resolution_height or self.resolution

    @property
    def bucket_range(self) -> tuple[int, int]:
        """Shortest and longest side of buckets, moved outwards to multiples of the step (as sd-scripts)."""
        step = self.bucket_reso_steps
        return self.min_bucket_reso // step * step, -(-self.max_bucket_reso // step) * step
