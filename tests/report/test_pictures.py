"""Where the pictures of a grid come to lie, and that broken ones are refused."""

import numpy as np
import pytest
from PIL import Image

from supcon_jax.report.pictures import grid, pixels, save_png, side_by_side


def flat(n, h=20, w=30):
    return np.broadcast_to(np.arange(1, n + 1, dtype=np.uint8)[:, None, None, None] * 20, (n, h, w, 3)).copy()


def test_pixels_rounds_and_refuses():
    x = np.zeros((2, 1, 1, 3), np.float32)
    x[0] = [[[-1, 0, 1]]]
    x[1] = [[[-7, 7, 0.5]]]
    np.testing.assert_array_equal(pixels(x)[:, 0, 0], [[0, 128, 255], [0, 255, 191]])
    x[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 2 are not finite"):
        grid(x)
    with pytest.raises(ValueError, match="need"):
        pixels(x[0])


def test_grid_places():
    sheet = np.asarray(grid(flat(5), columns=3, gap=4))
    assert sheet.shape == (2 * 24 - 4, 3 * 34 - 4, 3)
    for i in range(5):
        r, c = divmod(i, 3)
        assert (sheet[r * 24 : r * 24 + 20, c * 34 : c * 34 + 30] == 20 * (i + 1)).all()
    assert (sheet[20:24] == 255).all() and (sheet[24:, 2 * 34 :] == 255).all()


def test_captions_are_written_below_and_pictures_stay_whole():
    words = ["a red bird with a long beak", "ein Vögelchen \u4e2d", ""]
    bare, sheet = grid(flat(3), columns=2), grid(flat(3), columns=2, captions=words)
    assert sheet.width == bare.width and sheet.height > bare.height
    x = np.asarray(sheet)
    assert (x[:20, :30] == 20).all() and (x[:20, 32:62] == 40).all()
    assert (x[20:60, :30] < 100).any()
    with pytest.raises(ValueError, match="1 for 3"):
        grid(flat(3), captions=["x"])


def test_side_by_side_places():
    blocks = {"real": flat(2), "with SCL": flat(2) + 100}
    x = np.asarray(side_by_side(blocks, row_titles=["one", "two"], captions=["first", "second"]))
    for value in (20, 40, 120, 140):
        assert (x == value).all(-1).sum() >= 600
    rows = [np.argwhere((x == value).all(-1)).min(0) for value in (20, 40, 120, 140)]
    assert rows[0][0] == rows[2][0] < rows[1][0] == rows[3][0] and rows[0][1] == rows[1][1] < rows[2][1]
    with pytest.raises(ValueError, match="one shape"):
        side_by_side({"a": flat(2), "b": flat(3)})
    with pytest.raises(ValueError, match="row_titles: 1"):
        side_by_side(blocks, row_titles=["one"])


def test_png_keeps_every_pixel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    path = save_png(grid(x, columns=4, gap=0), tmp_path / "deep" / "sheet.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.concatenate(x, 1))
