"""Bytes or a file -> u8 RGB, and the crop geometry that makes every image size x size."""

import io
import os

import numpy as np
from etils import epath
from PIL import Image, ImageOps

from supcon_jax.config import UserError
from supcon_jax.data.skipped import BadRecord

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")  # rare decoders have had holes: a file that only claims to be .jpg is refused
PIXELS = 64_000_000  # read from the header, before anything is decoded: a file of 20 KB can unpack to half a gigabyte
SIDE = 16  # pixels; below this nothing can be told from the picture
ASPECT = 20
MODES = ("resize_crop", "resize", "centre", "none")


def decode(source, *, background=(255, 255, 255)):
    """Decode one picture to RGB.

    source: the file's bytes, or its path (local, or remote through epath).
    background: RGB under transparent pixels. (Dropping the alpha channel would show whatever colour hides there.)
    The EXIF orientation is applied; grey, palette and CMYK are converted; 16-bit grey is scaled by 1/257; of an
    animation the first frame is taken.
    Returns u8[h, w, 3].
    Raises BadRecord: unreadable, not one of FORMATS, damaged or cut short, more than PIXELS pixels, a side under SIDE
    pixels, or longer than ASPECT times its width.
    """
    try:
        data = source if isinstance(source, bytes) else epath.Path(os.fspath(source)).read_bytes()
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > PIXELS:
                raise BadRecord(f"too large: {width} x {height} pixels")
            if min(width, height) < SIDE or max(width, height) > ASPECT * min(width, height):
                raise BadRecord(f"too small or too narrow: {width} x {height} pixels")
            picture.load()  # raises for a file that is cut short: half a grey picture must not pass
            return _rgb(ImageOps.exif_transpose(picture), background)
    except BadRecord:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and its own, by format
        raise BadRecord(f"cannot be decoded ({type(error).__name__}: {_short(error)})") from error


def _short(error):
    return " ".join(str(error).split())[:120]


def _rgb(picture, background):
    """Any mode of a loaded picture -> u8[h, w, 3]."""
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        if picture.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise BadRecord(f"pixels of mode {picture.mode} have no known range")
        return np.repeat(np.rint(values / 257).astype(np.uint8)[..., None], 3, axis=-1)
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, (*background, 255)), picture)
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"), np.uint8)


def crop(image, size, rng, train, mode):
    """Bring one image to size x size.

    image: u8[h, w, 3]. size: pixels. rng: np.random.Generator, used only by "resize_crop" in training.
    train: random place of the crop; else the centre.
    mode: "resize_crop": the short side to int(size * 76 / 64), bilinear, then a crop (304 for 256 as AttnGAN does);
        "resize": squashed to size x size whatever its shape; "centre": the largest square in the middle, resized, in training
        too; "none": it must have that size already.
    Returns u8[size, size, 3].
    Raises UserError: "none" and another size, or an unknown mode.
    Differs from AttnGAN's loaders: they crop at random in testing too.
    """
    height, width = image.shape[:2]
    if mode == "none":
        if (height, width) != (size, size):
            raise UserError(
                f"images are {width} x {height} but data.size is {size} with data.crop=none: "
                "set data.crop to resize_crop, resize or centre, or data.size to what the images have"
            )
        return image
    if mode == "resize":
        return resize(image, size, size)
    if mode == "centre":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return resize(image[top : top + side, left : left + side], size, size)
    if mode != "resize_crop":
        raise UserError(f"data.crop={mode!r} is unknown: use one of {', '.join(MODES)}")
    short = int(size * 76 / 64)
    if height <= width:
        image = resize(image, short, int(short * width / height))
    else:
        image = resize(image, int(short * height / width), short)
    height, width = image.shape[:2]
    if train:
        top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    else:
        top, left = round((height - size) / 2), round((width - size) / 2)
    return image[top : top + size, left : left + size]


def middle(images, share):
    """The middle of pictures, pixels as they are: `share` of each side.

    With "centre" at 256 pixels and 0.875 this is the usual evaluation on ImageNet: the short side to 256, the middle 224.

    images: u8[..., h, w, 3]. Returns u8[..., round(h share), round(w share), 3], the same array for a share of 1.
    """
    height, width = images.shape[-3:-1]
    h, w = round(height * share), round(width * share)
    if (h, w) == (height, width):
        return images
    top, left = (height - h) // 2, (width - w) // 2
    return np.ascontiguousarray(images[..., top : top + h, left : left + w, :])


def resize(image, height, width):
    """u8[h, w, 3] -> u8[height, width, 3], bilinear with antialiasing as Pillow does it."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
