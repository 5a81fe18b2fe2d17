"""What SDXL is told of an image's sizes."""

from __future__ import annotations

from lib_lora.data.buckets import crop_in_bucket
from lib_lora.data.sizes import Size

Sizes = tuple[int, int, int, int, int, int]


def told_sizes(image: Size, bucket: Size, *, mirrored: bool) -> Sizes:
    """Height and width of the image, top and left of its cut, height and width of its bucket (sd-scripts `__getitem__`).

    The cut is where the image would lie if it were fitted inside the bucket, whatever is really cut off.
    """
    crop = crop_in_bucket(image, bucket)
    left = bucket.width - crop.right if mirrored else crop.left
    return (image.height, image.width, crop.top, left, bucket.height, bucket.width)
