"""Cross-modal retrieval: where the right answer stands when all candidates are sorted by similarity."""

import numpy as np

from supcon_jax.evals.fid import finite

TIE = 1e-12  # similarities of unit rows closer than this count as equal: two orders of one sum differ by that much


def ranks(image, text, captions_per_image=1, chunk=512):
    """0-based rank of the (best) right answer, both ways. Ties count against it: a constant encoder is not right.

    image: [n, d] unit rows; text: [n * c, d] unit rows, captions of image i are rows i*c .. i*c + c - 1.
    chunk: images compared at a time.
    Returns (image-to-text i[n], text-to-image i[n * c], best caption of each image i[n]).
    Raises ValueError: shapes disagree, rows that are not finite.
    """
    image, text = finite("image", image), finite("text", text)
    n, c = len(image), captions_per_image
    if text.shape != (n * c, image.shape[1]):
        raise ValueError(f"text: {n} images with {c} captions need shape {(n * c, image.shape[1])}, got {text.shape}")
    own = np.einsum("nd,ncd->nc", image, text.reshape(n, c, -1))
    forth, top = np.zeros(n, np.int64), np.zeros(n, np.int64)
    back = np.zeros(n * c, np.int64)
    for start in range(0, n, chunk):
        rows = np.arange(start, min(start + chunk, n))
        s = image[rows] @ text.T
        right = np.arange(n * c)[None] // c == rows[:, None]
        top[rows] = s.argmax(1)
        forth[rows] = ((s >= own[rows].max(1, keepdims=True) - TIE) & ~right).sum(1)
        back += ((s >= own.reshape(1, -1) - TIE) & ~right).sum(0)
    return forth, back, top


def summary(rank):
    """R@1, R@5, R@10 in percent, median rank (floor of the median, plus 1) and mean rank plus 1."""
    rank = np.asarray(rank)
    return {f"r{k}": float(100 * np.mean(rank < k)) for k in (1, 5, 10)} | {
        "median": float(np.floor(np.median(rank)) + 1),
        "mean": float(rank.mean() + 1),
    }


def recalls(image, text, captions_per_image=1):
    """Recall at 1, 5, 10, median and mean rank, image to text (i2t) and text to image (t2i).

    Faghri et al. 2018, arXiv 1707.05612, section 4. Arguments as in `ranks`.
    Returns {"i2t_r1": percent, ..., "i2t_median": rank from 1, ..., "t2i_mean": ...}.
    Differs from: VSE++ evaluation code (ties there fall as the sort leaves them; here against the right answer).
    """
    forth, back, _ = ranks(image, text, captions_per_image)
    return {f"{way}_{k}": v for way, rank in (("i2t", forth), ("t2i", back)) for k, v in summary(rank).items()}
