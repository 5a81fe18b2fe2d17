"""All families that can be trained."""

from __future__ import annotations

import math

from lib_lora.families.family import Family
from lib_lora.families.sd1 import SD1
from lib_lora.families.sd2 import SD2
from lib_lora.families.sdxl import SDXL

FAMILIES: tuple[Family, ...] = (SD1, SD2, SDXL)
LAYOUTS = tuple(dict.fromkeys(family.unet.layout for family in FAMILIES))
SIDE_STEP = math.lcm(*(family.vae_factor for family in FAMILIES))  # pixels; sides of images are multiples of it
TRAINABLE = f"{', '.join(family.name for family in FAMILIES)} and their inpainting models can be trained"
