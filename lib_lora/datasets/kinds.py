"""What a file is, by its content: a name's ending may be wrong."""

from __future__ import annotations

from dataclasses import dataclass

START = 64  # bytes that tell the kind


@dataclass(frozen=True)
class Kind:
    """A kind of file. `word`: for a sentence. `suffixes`: of names; the first is given where a name has another.

    `foreign`: Pillow's name of an image that must be converted. `why`: why it is not used, empty if it is.
    """

    word: str
    suffixes: tuple[str, ...] = ()
    foreign: str = ""
    why: str = ""

    @property
    def is_image(self) -> bool:
        """Whether training reads it as it is."""
        return bool(self.suffixes) and not self.foreign


PNG, JPEG = Kind("PNG", (".png",)), Kind("JPEG", (".jpg", ".jpeg"))
WEBP, BMP = Kind("WEBP", (".webp",)), Kind("BMP", (".bmp",))
GIF, TIFF = Kind("GIF", (".gif",), "GIF"), Kind("TIFF", (".tif", ".tiff"), "TIFF")
HEIC, AVIF = Kind("HEIC", (".heic", ".heif"), "HEIF"), Kind("AVIF", (".avif",), "AVIF")
ZIP = Kind("zip")
TEXT = Kind("text")
EMPTY = Kind("empty", why="empty; copy the file again")
VIDEO = Kind("video", why="videos are not used; save single pictures of it as PNG or JPEG")
DOCUMENT = Kind("document", why="documents are not used; save the images in it as PNG or JPEG")
ARCHIVE = Kind("archive", why="of archives only zips are used; unpack it and drop the images, or pack them as a zip")
OTHER_IMAGE = Kind("image", why="this kind of image is not used; save it as PNG or JPEG")
UNKNOWN = Kind("unknown", why="neither an image nor a caption; if it is an image, copy it again or save it as PNG or JPEG")

_STARTS = (
    (b"\x89PNG\r\n\x1a\n", PNG), (b"\xff\xd8\xff", JPEG), (b"GIF87a", GIF), (b"GIF89a", GIF), (b"II*\0", TIFF),
    (b"MM\0*", TIFF), (b"PK\x03\x04", ZIP), (b"PK\x05\x06", ZIP), (b"%PDF", DOCUMENT), (b"\xd0\xcf\x11\xe0", DOCUMENT),
    (b"{\\rtf", DOCUMENT), (b"Rar!", ARCHIVE), (b"7z\xbc\xaf\x27\x1c", ARCHIVE), (b"\x1f\x8b", ARCHIVE), (b"\xfd7zXZ", ARCHIVE),
    (b"\x28\xb5\x2f\xfd", ARCHIVE), (b"BZh", ARCHIVE), (b"8BPS", OTHER_IMAGE), (b"\0\0\1\0", OTHER_IMAGE),
    (b"\xff\x0a", OTHER_IMAGE), (b"\0\0\0\x0cJXL ", OTHER_IMAGE), (b"\0\0\0\x0cjP  ", OTHER_IMAGE), (b"II+\0", OTHER_IMAGE),
    (b"MM\0+", OTHER_IMAGE), (b"<svg", OTHER_IMAGE), (b"\x1a\x45\xdf\xa3", VIDEO), (b"\0\0\1\xba", VIDEO),
    (b"\0\0\1\xb3", VIDEO), (b"FLV\1", VIDEO), (b"\x30\x26\xb2\x75", VIDEO),
)  # fmt: skip
_BMP_HEADERS = {12, 40, 52, 56, 64, 108, 124}  # lengths
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_OFFICE = {".docx", ".xlsx", ".pptx", ".odt", ".ods", ".odp", ".epub"}  # zips inside
_TEXTS = {".txt", ".caption"}


def kind_of(name: str, start: bytes) -> Kind:
    """The kind of a file. `start`: its first START bytes, all of a shorter file. The name tells kinds of texts and zips only."""
    suffix = "." + name.lower().rpartition(".")[2]
    if not start:
        return EMPTY
    found = _by_content(start)
    if found is ZIP and suffix in _OFFICE:
        return DOCUMENT
    if found is None:
        return TEXT if suffix in _TEXTS else UNKNOWN
    return found


def _by_content(start: bytes) -> Kind | None:
    for magic, kind in _STARTS:
        if start.startswith(magic):
            return kind
    if start.startswith(b"RIFF") and start[8:12] in (b"WEBP", b"AVI "):
        return WEBP if start[8:12] == b"WEBP" else VIDEO
    if start.startswith(b"BM") and int.from_bytes(start[14:18], "little") in _BMP_HEADERS:
        return BMP
    if start[4:8] == b"ftyp":
        return _of_brands(start)
    return VIDEO if start[4:8] in (b"moov", b"mdat", b"wide") else None


def _of_brands(start: bytes) -> Kind:
    """The kind of a file of boxes, such as MP4 and HEIC: by its main brand, or those it is compatible with."""
    length = min(int.from_bytes(start[:4], "big"), START)
    brands = [start[8:12], *(start[at : at + 4] for at in range(16, length, 4))]
    if _AVIF_BRANDS & {*brands}:
        return AVIF
    if _HEIC_BRANDS & {*brands}:
        return HEIC
    return VIDEO


def ends_early(kind: Kind, content: bytes) -> bool:
    """Whether an image is seen to be broken off without decoding it. Not every broken image is."""
    if kind is PNG:
        return content.rfind(b"IEND\xaeB`\x82") < 0  # it is near the end
    if kind is WEBP:
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    if kind is JPEG:
        scan = _first_scan(content)
        return scan is None or content.rfind(b"\xff\xd9", scan) < 0  # it is near the end
    return False


def _first_scan(content: bytes) -> int | None:
    """Where the image data of a JPEG begin; None if the file ends before. Previews in its segments are passed over."""
    at = 2
    while at + 4 <= len(content):
        if content[at] != 0xFF or content[at + 1] == 0xFF:  # fill
            at += 1
            continue
        if content[at + 1] == 0xDA:
            return at
        at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None
