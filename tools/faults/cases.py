"""The cases of the campaign: faults that are caused on purpose."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A fault. `gpu`: it is repeated on a GPU. `needs`: what its test needs, "GPU" or "Windows", else ""."""

    number: int
    fault: str
    gpu: bool = False
    needs: str = ""


CASES = tuple(
    Case(number, fault, gpu=number in {1, 2, 3, 6, 43, 44, 47, 68, 70}, needs={21: "Windows"}.get(number, ""))
    for number, fault in (
        (1, "out of memory at the first step"),
        (2, "out of memory at step N: in forward, backward, optimizer"),
        (3, "out of memory while a sample is drawn"),
        (4, "a loss that is no number at step 10"),
        (5, "infinite gradients under a loss scaler"),
        (6, "a VAE in half precision"),
        (7, "a learning rate of 1000"),
        (8, "an image of zero bytes"),
        (9, "half a JPEG, a PNG without its end"),
        (10, "text named .jpg, a JPEG named .png"),
        (11, "pictures of 144 and 200 million pixels in small files"),
        (12, "animated GIF, WEBP, PNG"),
        (13, "CMYK JPEGs, Adobe's inverted ones too"),
        (14, "16-bit PNGs"),
        (15, "palette, 1 bit, transparency with hidden colour"),
        (16, "EXIF orientation 1 to 8"),
        (17, "images of 1×1, 8×4096, 10000×40"),
        (18, "TIFF, ICO, PSD, SVG, HEIC, AVIF"),
        (19, "a file deleted, changed or locked after the check"),
        (20, "file names in every script, of every length"),
        (21, "paths of Windows"),
        (22, "captions missing, empty, huge, in other encodings"),
        (23, "prompt syntax in captions"),
        (24, "odd trigger words"),
        (25, "disk full while a LoRA is saved"),
        (26, "disk full while a state or a picture is saved"),
        (27, "errors of fsync and rename"),
        (28, "kill -9 at any moment"),
        (29, "kill -9 while saving"),
        (30, "going on after a kill"),
        (31, "going on twice and thrice, anywhere in an epoch"),
        (32, "going on with other images, model, versions, settings"),
        (33, "damaged states"),
        (34, "a power cut: what was not synced is lost"),
        (35, "Interrupt, Skip, Stop, Pause at any moment"),
        (36, "browser closed, reloaded, opened twice"),
        (37, "checkpoint switched during a run"),
        (38, "checkpoint unloaded and reloaded during a run"),
        (39, "two people press Train at once"),
        (40, "a picture asked for during a run"),
        (41, "interrogate, extras, hires fix during a run"),
        (42, "Reload UI, SIGTERM, SIGINT during a run"),
        (43, "the host bit for bit as before"),
        (44, "an exception at 30 places"),
        (45, "LoRAs, hypernetworks and others left on the model"),
        (46, "the LoRA that is applied is overwritten"),
        (47, "medvram, lowvram, no-half, CPU alone"),
        (48, "hostile names of a LoRA"),
        (49, "hostile image folders"),
        (50, "links in place of our files"),
        (51, "a pickle in place of a state"),
        (52, "zip bombs and other archives"),
        (53, "hostile safetensors files"),
        (54, "our files in the webui's reader, editor and pages"),
        (55, "hostile settings files of kohya"),
        (56, "HTML and scripts in every text"),
        (57, "numbers out of every range"),
        (58, "crafted and fuzzed pictures"),
        (59, "presets and queue edited by hand"),
        (60, "a webui in which the extension cannot be imported"),
        (61, "installation without network or permission"),
        (62, "no credentials, in every mode of logging in"),
        (63, "requests from foreign pages"),
        (64, "private files through the webui's file route"),
        (65, "floods of requests"),
        (66, "names that are taken"),
        (67, "a LoRA overwritten while it is mapped into memory"),
        (68, "20 runs in a row"),
        (69, "clock, locale, console, home folder"),
        (70, "the same run in sd-scripts"),
    )
)  # fmt: skip
# may not be waived
NO_WAIVER = (25, 28, 29, 30, 31, 43, 44, 48, 51, 56, 62)
