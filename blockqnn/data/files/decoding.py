"""A picture of any kind as 8-bit RGB, the same for every reader."""

import struct
import tarfile
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

TYPES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif",
)  # fmt: skip
"""How the names of files end that are read as images, in lower case."""

UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    struct.error,
    zlib.error,
    tarfile.TarError,
    Image.DecompressionBombError,
)
"""Errors that PIL and tarfile raise for files that are damaged or no images."""

ORIENTATION = 0x0112
"""EXIF's field of how a camera was held; 1 is upright."""


def eight_bit_rgb(image: Image.Image) -> Image.Image:
    """An opened image as RGB: the first picture of an animation, upright as its camera was held,
    white where it is transparent, the upper 8 of 16 bits.

    Raises `ValueError` for pixels of 32 bits, and what PIL raises for a damaged file.
    """
    image = _upright(image)
    if image.mode.startswith("I;16"):  # PIL would cut every value above 255 down to it
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("pixels of 32 bits have no known range, save it with 8 or 16")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        # colours under transparent pixels are arbitrary, and black line art may have no others
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """The image as its camera was held; as it lies where what says so is damaged."""
    try:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image
    except UNREADABLE:  # of the metadata: the picture may be whole
        return image
    return ImageOps.exif_transpose(image)


def in_words(error: Exception) -> str:
    """What is wrong with a file, from an error of `UNREADABLE`."""
    if isinstance(error, UnidentifiedImageError):  # it names a file object
        return "of no known format"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
