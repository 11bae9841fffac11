"""Pictures as bad cameras, weather and compression spoil them: 15 kinds in 5 severities, for tests of robustness.

The kinds are those of Hendrycks & Dietterich 2019, arXiv 1903.12261, section 4 and appendix A. Each is written from its
description there; numbers follow the strengths that are usual at 32 and at 224 pixels.
"""

import functools
import io

import numpy as np
from PIL import Image

from supcon_jax.config import UserError

SEVERITIES = (1, 2, 3, 4, 5)
SMALL, LARGE = 32, 224  # pixels of the shorter side that the two rows of a strength stand for
GREY = np.array([0.299, 0.587, 0.114])
ICE = np.array([0.86, 0.93, 1.0])  # colour of snow and frost


def corrupt(image, kind, severity, *, seed=0, record=0):
    """One picture with one kind of corruption.

    image: u8[h, w, 3]. kind: a name of KINDS. severity: 1 to 5. seed, record: decide all that is random.
    Strengths (STRENGTH) lie between those for 32 and for 224 pixels by the logarithm of the shorter side.
    The same random numbers serve all severities of a (seed, record, kind), so that a higher one is the same picture with
    more of the same: the mean squared change grows with the severity.
    Returns u8[h, w, 3]. Raises UserError: an unknown kind or severity.
    Differs from the published sets (CIFAR-10-C, ImageNet-C): their noise is drawn anew for each severity; their frost is
    photographs, here a generated texture of ridges; glass displaces pixels by parts of a pixel in place of swapping them;
    elastic bends by one smooth field without an affine part; snow and motion blur have kernels of their own. Errors are
    therefore not comparable with published ones picture by picture.
    """
    if kind not in KINDS:
        raise UserError(f"corruption {kind!r} is not known: use one of {', '.join(KINDS)}")
    if severity not in SEVERITIES:
        raise UserError(f"corruption severity {severity!r}: use 1 to 5")
    rng = np.random.default_rng([seed, int(record) % 2**32, list(KINDS).index(kind)])
    amount = strength(kind, severity, min(image.shape[:2]))
    out = KINDS[kind](image.astype(np.float64) / 255, amount, rng)
    return np.rint(255 * np.clip(out, 0, 1)).astype(np.uint8)


def corrupted(images, kind, severity, *, seed=0, records=None):
    """`corrupt` for a batch. images: u8[n, h, w, 3]. records: i[n], their places if left out. Returns u8[n, h, w, 3]."""
    records = range(len(images)) if records is None else records
    rows = [corrupt(image, kind, severity, seed=seed, record=r) for image, r in zip(images, records, strict=True)]
    return np.stack(rows)


def strength(kind, severity, side):
    """The number that a kind's function takes, for pictures whose shorter side has so many pixels."""
    small, large = (row[severity - 1] for row in STRENGTH[kind])
    share = np.clip(np.log(side / SMALL) / np.log(LARGE / SMALL), 0, 1)
    return float(small * (large / small) ** share)


# ---- noise: x f64[h, w, 3] in [0, 1], amount, rng -> f64[h, w, 3], clipped by the caller


def gaussian_noise(x, sigma, rng):
    """x + sigma n."""
    return x + sigma * rng.standard_normal(x.shape)


def shot_noise(x, photons, rng):
    """Poisson(x photons) / photons: light that comes in so many pieces at most."""
    return rng.poisson(x * photons) / photons


def impulse_noise(x, share, rng):
    """That share of all values becomes 0 or 1."""
    chance, value = rng.random(x.shape), rng.integers(2, size=x.shape)
    return np.where(chance < share, value, x)


# ---- blur


def defocus_blur(x, radius, rng):
    """The mean over a disk of that radius in pixels, its edge smooth."""
    y, z = _grid(int(np.ceil(radius + 0.5)))
    return _filtered(x, np.clip(radius + 0.5 - np.hypot(y, z), 0, 1))


def glass_blur(x, shift, rng):
    """Twice: each pixel shows a place at most `shift` pixels away in each direction. A slight blur before and after."""
    kernel = _bell(0.4 * shift)
    x = _filtered(x, kernel)
    for _ in range(2):
        x = _moved(x, *(shift * rng.uniform(-1, 1, (2, *x.shape[:2]))))
    return _filtered(x, kernel)


def motion_blur(x, sigma, rng):
    """A Gaussian of sigma pixels along a line of random direction within 45 degrees of the horizon."""
    return _filtered(x, _line(sigma, rng.uniform(-np.pi / 4, np.pi / 4)))


def zoom_blur(x, most, rng):
    """The mean of the picture and of ten that are zoomed into its centre, by up to the factor `most`."""
    middle = [(side - 1) / 2 for side in x.shape[:2]]
    y, z = (np.arange(side)[:, None] if axis == 0 else np.arange(side)[None] for axis, side in enumerate(x.shape[:2]))
    zoomed = [_sampled(x, *np.broadcast_arrays(*((p - m) / f + m for p, m in zip((y, z), middle, strict=True))))
              for f in np.linspace(1, most, 11)[1:]]  # fmt: skip
    return (x + sum(zoomed)) / (len(zoomed) + 1)


# ---- weather


def snow(x, amount, rng):
    """Flakes that drift one way, and all of the picture whiter."""
    height, width = x.shape[:2]
    scale = max(1, min(height, width) // 48)
    field = rng.standard_normal((-(-height // scale), -(-width // scale)))
    angle = rng.uniform(-0.75, -0.25) * np.pi  # from above
    flakes = (field > 2.2 - 2 * amount).repeat(scale, 0).repeat(scale, 1)[:height, :width].astype(np.float64)
    flakes = np.clip(1.6 * _filtered(flakes[..., None], _line(0.8 * scale, angle)), 0, 1)
    pale = np.maximum(x, 0.5 + 0.5 * (x @ GREY)[..., None])
    x = (1 - amount) * x + amount * pale
    return x + flakes * amount**0.5 * (ICE - x)


def frost(x, amount, rng):
    """Ice over the picture: thin bright ridges of two fields of noise, which stand for photographs of frost."""
    ridges = [np.clip(1 - 2.5 * np.abs(_cloud(rng, x.shape[:2], decay) - 0.5), 0, 1) ** 4 for decay in (1.6, 1.1)]
    ice = 0.35 + 0.65 * np.maximum(*ridges)[..., None] * ICE
    return (1 - 0.55 * amount) * x + amount * ice * (0.6 + 0.4 * _cloud(rng, x.shape[:2], 2.0)[..., None])


def fog(x, amount, rng):
    """(x + a p) m / (m + a), p a cloud in [0, 1], m the brightest value of x."""
    most = max(x.max(), 1e-3)
    return (x + amount * _cloud(rng, x.shape[:2], 1.7)[..., None]) * most / (most + amount)


def brightness(x, more, rng):
    """The largest of a pixel's three values, its V, grows by `more`; hue and saturation stay."""
    value = x.max(-1, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    return np.where(value > 0, x / np.where(value > 0, value, 1), 1) * raised


# ---- digital


def contrast(x, share, rng):
    """That share of what differs from each channel's mean."""
    mean = x.mean((0, 1))
    return mean + share * (x - mean)


def elastic(x, shift, rng):
    """Bent by a smooth random field whose shifts have the root mean square `shift` in pixels."""
    side = min(x.shape[:2])
    field = _filtered(rng.uniform(-1, 1, (*x.shape[:2], 2)), _bell(0.06 * side))
    return _moved(x, *np.moveaxis(shift * field / np.sqrt((field**2).mean()), -1, 0))


def pixelate(x, share, rng):
    """A mosaic of that share of the picture's rows and columns, seen by its own pixels: both steps are means over areas."""
    rows, columns = (_covered(side, max(1, round(side * share))) for side in x.shape[:2])
    cells = np.einsum("ah,bw,hwc->abc", _shares(rows.T), _shares(columns.T), x, optimize=True)
    return np.einsum("ha,wb,abc->hwc", _shares(rows), _shares(columns), cells, optimize=True)


def jpeg(x, quality, rng):
    """Written as JPEG of that quality, and read again."""
    data = io.BytesIO()
    Image.fromarray(np.rint(255 * x).astype(np.uint8)).save(data, "JPEG", quality=round(quality))
    return np.asarray(Image.open(data)) / 255


KINDS = {function.__name__: function for function in (
    gaussian_noise, shot_noise, impulse_noise, defocus_blur, glass_blur, motion_blur, zoom_blur, snow, frost, fog, brightness,
    contrast, elastic, pixelate, jpeg,
)}  # fmt: skip
STRENGTH = {  # kind -> (severities 1 to 5 at 32 pixels, at 224 pixels)
    "gaussian_noise": ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot_noise": ((500, 250, 100, 75, 50), (60, 25, 12, 5, 3)),
    "impulse_noise": ((0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus_blur": ((0.7, 0.9, 1.1, 1.3, 1.6), (3, 4, 6, 8, 10)),
    "glass_blur": ((0.4, 0.6, 0.8, 1.0, 1.3), (1, 1.5, 2, 3, 4)),
    "motion_blur": ((0.6, 0.9, 1.2, 1.6, 2.0), (3, 5, 8, 12, 15)),
    "zoom_blur": ((1.06, 1.11, 1.16, 1.21, 1.26), (1.1, 1.15, 1.2, 1.26, 1.33)),
    "snow": ((0.1, 0.15, 0.2, 0.26, 0.33), (0.15, 0.25, 0.35, 0.45, 0.55)),
    "frost": ((0.2, 0.27, 0.34, 0.4, 0.46), (0.4, 0.5, 0.6, 0.68, 0.75)),
    "fog": ((0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2, 2.4, 2.7, 3)),
    "brightness": ((0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05)),
    "elastic": ((0.4, 0.6, 0.8, 1.0, 1.3), (2, 3, 4.5, 6, 8)),
    "pixelate": ((0.9, 0.75, 0.6, 0.5, 0.4), (0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": ((80, 65, 58, 50, 40), (25, 18, 15, 10, 7)),
}


# ---- what they share


def _grid(radius):
    """(rows, columns) of a square of 2 radius + 1 pixels, counted from its centre."""
    return np.mgrid[-radius : radius + 1, -radius : radius + 1]


@functools.lru_cache(maxsize=64)
def _bell(sigma):
    y, z = _grid(int(np.ceil(3 * sigma)))
    return np.exp(-(y**2 + z**2) / (2 * sigma**2))


def _line(sigma, angle):
    """A line through the centre, one pixel wide, weighted by a Gaussian along it."""
    y, z = _grid(int(np.ceil(2 * sigma)) + 1)
    along, across = z * np.cos(angle) - y * np.sin(angle), z * np.sin(angle) + y * np.cos(angle)
    return np.exp(-(along**2) / (2 * sigma**2)) * np.clip(1 - np.abs(across), 0, 1)


def _filtered(x, kernel):
    """x [h, w, c] under the kernel [k, k], which is made to sum to 1; the picture is mirrored at its edges."""
    pad = kernel.shape[0] // 2
    wide = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), "symmetric")
    shape = wide.shape[:2]
    spectrum = np.fft.rfft2(wide, axes=(0, 1)) * np.fft.rfft2(kernel / kernel.sum(), shape)[..., None]
    full = np.fft.irfft2(spectrum, shape, axes=(0, 1))
    return full[2 * pad :, 2 * pad :]  # the kernel lies with its corner, not its centre, on the first pixel


def _covered(pixels, cells):
    """How much of each pixel each of the equal cells covers: [pixels, cells]."""
    ends, marks = np.arange(pixels + 1.0), np.linspace(0, pixels, cells + 1)
    return np.clip(np.minimum(ends[1:, None], marks[1:]) - np.maximum(ends[:-1, None], marks[:-1]), 0, None)


def _shares(x):
    return x / x.sum(1, keepdims=True)


def _moved(x, down, right):
    """x [h, w, c] read at places shifted by [h, w] pixels, bilinear, the edge repeated."""
    y, z = np.mgrid[: x.shape[0], : x.shape[1]]
    return _sampled(x, y + down, z + right)


def _sampled(x, y, z):
    """x [h, w, c] at rows y and columns z [h, w], bilinear, the edge repeated."""
    y, z = np.clip(y, 0, x.shape[0] - 1), np.clip(z, 0, x.shape[1] - 1)
    top, left = np.floor(y).astype(int), np.floor(z).astype(int)
    below, right = np.minimum(top + 1, x.shape[0] - 1), np.minimum(left + 1, x.shape[1] - 1)
    v, u = (y - top)[..., None], (z - left)[..., None]
    return (1 - v) * ((1 - u) * x[top, left] + u * x[top, right]) + v * ((1 - u) * x[below, left] + u * x[below, right])


def _cloud(rng, shape, decay):
    """Noise in [0, 1] whose amplitudes fall with the frequency f as f^-decay: [h, w]."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = np.inf  # no mean
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) / frequency**decay, shape)
    return (field - field.min()) / (np.ptp(field) + 1e-12)
