"""Decoding and the geometry of the crop, against Pillow used by hand."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from supcon_jax.config import UserError
from supcon_jax.data.images import crop, decode, middle
from supcon_jax.data.source import BadRecord


def ramp(height, width):
    """Red tells the column, green the row."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // (width - 1), y * 255 // (height - 1), 0 * x], -1).astype(np.uint8)


def packed(picture, kind="PNG", **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


def test_rgb_round_trip_from_bytes_and_file(tmp_path):
    data = packed(Image.fromarray(ramp(20, 30)))
    np.testing.assert_array_equal(decode(data), ramp(20, 30))
    (tmp_path / "a.png").write_bytes(data)
    np.testing.assert_array_equal(decode(tmp_path / "a.png"), ramp(20, 30))


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK"])
def test_other_modes_become_rgb(mode):
    picture = Image.fromarray(ramp(20, 30)).convert(mode)
    got = decode(packed(picture, "JPEG" if mode == "CMYK" else "PNG", **({"quality": 100} if mode == "CMYK" else {})))
    assert got.shape == (20, 30, 3) and got.dtype == np.uint8
    assert np.abs(got.astype(int) - np.asarray(picture.convert("RGB"), int)).mean() < 3


def test_transparent_pixels_show_the_background():
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[..., 0] = 255
    pixels[:8, :, 3] = 255
    got = decode(packed(Image.fromarray(pixels)))
    assert (got[:8] == [255, 0, 0]).all() and (got[8:] == 255).all()
    assert (decode(packed(Image.fromarray(pixels)), background=(0, 9, 0))[8:] == [0, 9, 0]).all()


def test_sixteen_bits_are_scaled_not_clipped():
    values = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    np.testing.assert_array_equal(decode(packed(Image.fromarray(values)))[..., 1], np.arange(256).reshape(16, 16))


def test_orientation_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    got = decode(packed(Image.fromarray(ramp(20, 30)), exif=exif))
    np.testing.assert_array_equal(got, np.rot90(ramp(20, 30), -1))


def bomb():
    """A PNG whose header says 12000 x 12000."""
    data = bytearray(packed(Image.fromarray(ramp(16, 16))))
    data[16:24] = (12000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
BROKEN = {
    "empty": b"",
    "text": b"<html>not found</html>",
    "jpeg cut": packed(Image.fromarray(noise), "JPEG")[:2000],
    "png cut": packed(Image.fromarray(noise))[:4000],
    "bomb": bomb(),
    "tiny": packed(Image.fromarray(noise[:8])),
    "narrow": packed(Image.fromarray(np.zeros((16, 400, 3), np.uint8))),
    "other format": packed(Image.fromarray(noise), "TIFF"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_bad_records(name):
    with pytest.raises(BadRecord):
        decode(BROKEN[name])


def test_missing_file_is_a_bad_record(tmp_path):
    with pytest.raises(BadRecord, match="FileNotFound"):
        decode(tmp_path / "none.jpg")


@pytest.mark.parametrize("height, width", [(100, 160), (160, 100), (64, 64), (20, 35)])
def test_centre_crop(height, width):
    picture = ramp(height, width)
    short = 38  # int(32 * 76 / 64)
    scale = short / min(height, width)
    whole = Image.fromarray(picture).resize((int(width * scale), int(height * scale)), Image.Resampling.BILINEAR)
    left, top = round((whole.width - 32) / 2), round((whole.height - 32) / 2)
    want = np.asarray(whole)[top : top + 32, left : left + 32]
    got = crop(picture, 32, None, False, "resize_crop")
    assert got.shape == (32, 32, 3)
    np.testing.assert_array_equal(got, want)


def test_random_crops_reach_every_corner():
    picture = ramp(38, 60)
    corners = set()
    for i in range(600):
        got = crop(picture, 32, np.random.default_rng(i), True, "resize_crop")
        top = int(got[0, 0, 1]) * 37 / 255
        left = int(got[0, 0, 0]) * 59 / 255
        corners.add((round(top), round(left)))
    assert {y for y, _ in corners} == set(range(7)) and {x for _, x in corners} == set(range(29))


@pytest.mark.parametrize("height, width", [(40, 81), (81, 40), (50, 50), (32, 32)])
@pytest.mark.parametrize("train", [True, False])
def test_the_largest_square_in_the_centre(height, width, train):
    picture, side = ramp(height, width), min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(picture).crop((left, top, left + side, top + side))
    want = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(crop(picture, 32, None, train, "centre"), want)


def test_the_middle_of_the_largest_square_is_the_usual_evaluation():
    """The short side to 256 and the middle 224, by Pillow: both halve here, so that no pixel may differ."""
    rng = np.random.default_rng(0)
    for height, width in ((512, 768), (768, 512)):
        picture = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
        small = Image.fromarray(picture).resize((width // 2, height // 2), Image.Resampling.BILINEAR)
        left, top = (width // 2 - 224) // 2, (height // 2 - 224) // 2
        want = np.asarray(small.crop((left, top, left + 224, top + 224)))
        np.testing.assert_array_equal(middle(crop(picture, 256, None, False, "centre"), 0.875), want)


def test_the_middle_is_pixels_as_they_are():
    pictures = np.random.default_rng(1).integers(0, 256, (3, 2, 20, 20, 3)).astype(np.uint8)
    np.testing.assert_array_equal(middle(pictures, 0.7), pictures[:, :, 3:17, 3:17])
    np.testing.assert_array_equal(middle(pictures[0, 0], 0.44), pictures[0, 0, 5:14, 5:14])  # 8.8 are 9; 5 before, 6 behind
    assert middle(pictures, 1.0) is pictures


def test_squash_and_none():
    picture = ramp(40, 80)
    got = crop(picture, 32, None, True, "resize")
    assert got.shape == (32, 32, 3) and got[:, -1, 0].min() > 245 and got[-1, :, 1].min() > 245
    assert crop(ramp(32, 32), 32, None, True, "none").shape == (32, 32, 3)
    with pytest.raises(UserError, match="data.crop"):
        crop(picture, 32, None, True, "none")
    with pytest.raises(UserError, match="resize_crop"):
        crop(picture, 32, None, True, "squeeze")
