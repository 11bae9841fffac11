"""Contact sheets of pictures, with captions and with titles of rows and columns."""

import io
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from supcon_jax import storage

WHITE, BLACK = (255, 255, 255), (0, 0, 0)
LINE = 13  # pixels a line of the default font takes
LETTER = 6  # and about what one of its letters does


def pixels(images):
    """u8[n, h, w, 3] of pictures in u8 or in [-1, 1].

    Raises ValueError: another shape, or values that are not finite (a broken picture is not shown as a black one).
    """
    x = np.asarray(images)
    if x.ndim != 4 or x.shape[-1] != 3:
        raise ValueError(f"images: need [n, h, w, 3], got {x.shape}")
    if x.dtype == np.uint8:
        return x
    bad = int((~np.isfinite(x.astype(np.float32)).all((1, 2, 3))).sum())
    if bad:
        raise ValueError(f"images: {bad} of {len(x)} are not finite")
    return np.clip(np.round((x.astype(np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def wrapped(text, width):
    """Lines of a text that fit into so many pixels."""
    return textwrap.wrap(plain(text), max(1, width // LETTER)) or [""]


def plain(text):
    """The default bitmap font knows Latin-1; anything else is shown as a question mark."""
    return str(text).encode("latin-1", "replace").decode("latin-1")


def canvas(width, height):
    sheet = Image.new("RGB", (width, height), WHITE)
    return sheet, ImageDraw.Draw(sheet), ImageFont.load_default_imagefont()


def zoomed(images, side=96):
    """Small pictures as whole multiples of themselves, at least `side` pixels wide, so that eyes and captions have room."""
    x = pixels(images)
    times = -(-side // x.shape[2])
    return x if times == 1 else x.repeat(times, axis=1).repeat(times, axis=2)


def grid(images, columns=8, gap=2, captions=None):
    """Pictures in rows of `columns`, white between them, captions (wrapped) below each.

    images: [n, h, w, 3] u8 or floats in [-1, 1]; captions: n texts or None.
    Returns a PIL image; rows * (h + gap) - gap high, and as many caption lines more as a row's longest needs.
    """
    x = pixels(images)
    n, h, w, _ = x.shape
    if not n or columns < 1:
        raise ValueError(f"grid: {n} pictures in {columns} columns")
    if captions is not None and len(captions) != n:
        raise ValueError(f"captions: {len(captions)} for {n} pictures")
    columns = min(columns, n)
    lines = [wrapped(c, w) for c in captions] if captions is not None else [[] for _ in range(n)]
    deep = [LINE * max(map(len, lines[i : i + columns])) for i in range(0, n, columns)]
    tops = np.concatenate([[0], np.cumsum([h + d + gap for d in deep])])
    sheet, draw, font = canvas(columns * (w + gap) - gap, int(tops[-1]) - gap)
    for i in range(n):
        row, column = divmod(i, columns)
        left, top = column * (w + gap), int(tops[row])
        sheet.paste(Image.fromarray(x[i]), (left, top))
        for j, line in enumerate(lines[i]):
            draw.text((left, top + h + j * LINE), line, fill=BLACK, font=font)
    return sheet


def side_by_side(blocks, row_titles=None, gap=2, captions=None):
    """Variants beside each other: one column a variant with its name above, one row a caption.

    blocks: {column title: [n, h, w, 3]}, all of one shape; row_titles: n texts at the left, or None;
    captions: n texts, each below its row over the whole width, or None.
    Returns a PIL image.
    """
    columns = {title: pixels(x) for title, x in blocks.items()}
    shapes = {x.shape for x in columns.values()}
    if len(shapes) != 1:
        raise ValueError(f"side_by_side: blocks of one shape, got {sorted(shapes)}")
    n, h, w, _ = shapes.pop()
    for name, texts in (("row_titles", row_titles), ("captions", captions)):
        if texts is not None and len(texts) != n:
            raise ValueError(f"{name}: {len(texts)} for {n} rows")
    margin = max(w, 12 * LETTER) + gap if row_titles is not None else 0
    width = margin + len(columns) * (w + gap) - gap
    heads = [wrapped(title, w) for title in columns]
    said = [wrapped(c, width) if captions is not None else [] for c in (captions or [""] * n)]
    sides = [wrapped(t, margin - gap) if row_titles is not None else [] for t in (row_titles or [""] * n)]
    deep = [max(h, LINE * len(side)) + LINE * len(line) for side, line in zip(sides, said, strict=True)]
    top = LINE * max(map(len, heads)) + gap
    sheet, draw, font = canvas(width, top + sum(deep) + gap * (n - 1))
    for c, head in enumerate(heads):
        for j, line in enumerate(head):
            draw.text((margin + c * (w + gap), j * LINE), line, fill=BLACK, font=font)
    for i in range(n):
        for c, x in enumerate(columns.values()):
            sheet.paste(Image.fromarray(x[i]), (margin + c * (w + gap), top))
        for j, line in enumerate(sides[i]):
            draw.text((0, top + j * LINE), line, fill=BLACK, font=font)
        below = top + max(h, LINE * len(sides[i]))
        for j, line in enumerate(said[i]):
            draw.text((0, below + j * LINE), line, fill=BLACK, font=font)
        top += deep[i] + gap
    return sheet


def save_png(picture, path):
    """Write a picture as PNG (lossless), folders made as needed; paths may be remote. Returns the path."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    storage.write(path, buffer.getvalue())
    return path
