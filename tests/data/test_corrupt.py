"""data/corrupt.py: each kind on pictures with detail at all scales, and against its definition where that is a line."""

import io

import numpy as np
import pytest
from PIL import Image

from supcon_jax.config import UserError
from supcon_jax.data import corrupt as module
from supcon_jax.data.corrupt import KINDS, SEVERITIES, STRENGTH, corrupt, corrupted, strength


def scene(side, i):
    """Smooth clouds with a few sharp squares: u8[side, side, 3]."""
    rng = np.random.default_rng(i)
    picture = np.stack([module._cloud(rng, (side, side), 1.2) for _ in range(3)], -1)
    for _ in range(4):
        top, left = rng.integers(0, side - side // 6, 2)
        picture[top : top + side // 6, left : left + side // 6] = rng.random(3)
    return np.rint(255 * picture).astype(np.uint8)


@pytest.fixture(scope="module", params=[32, 96])
def scenes(request):
    return np.stack([scene(request.param, i) for i in range(6)])


@pytest.mark.parametrize("kind", KINDS)
def test_the_change_grows_with_the_severity(scenes, kind):
    errors = []
    for severity in SEVERITIES:
        out = corrupted(scenes, kind, severity)
        assert out.dtype == np.uint8 and out.shape == scenes.shape
        errors.append(((out.astype(float) - scenes) ** 2).mean())
    assert errors[0] > 5 and (np.diff(errors) > 0).all(), errors


@pytest.mark.parametrize("kind", KINDS)
def test_seed_record_kind_and_severity_decide_everything(kind):
    picture = scene(32, 9)
    one = corrupt(picture, kind, 3, seed=1, record=7)
    np.testing.assert_array_equal(one, corrupt(picture, kind, 3, seed=1, record=7))
    np.testing.assert_array_equal(one, corrupted(np.stack([picture] * 2), kind, 3, seed=1, records=[2, 7])[1])
    fixed = kind in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg")
    for other in ({"seed": 2, "record": 7}, {"seed": 1, "record": 8}):
        assert np.array_equal(one, corrupt(picture, kind, 3, **other)) == fixed
    assert not np.array_equal(one, corrupt(picture, kind, 4, seed=1, record=7))


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_of_any_shape_and_flat_ones(kind):
    for picture in (scene(48, 0)[:, :30], np.zeros((20, 33, 3), np.uint8), np.full((17, 16, 3), 255, np.uint8)):
        out = corrupt(picture, kind, 5)
        assert out.shape == picture.shape and out.dtype == np.uint8


def test_strengths_lie_between_those_of_both_sizes():
    for kind, (small, large) in STRENGTH.items():
        assert (
            [strength(kind, s, 16) for s in SEVERITIES] == pytest.approx(small) == [strength(kind, s, 32) for s in SEVERITIES]
        )
        for side, row in ((16, small), (32, small), (224, large), (500, large)):
            assert [strength(kind, s, side) for s in SEVERITIES] == pytest.approx(row)
        for row in (small, large):  # one way
            assert len(row) == 5 and abs(np.sign(np.diff(row)).sum()) == 4
    assert strength("defocus_blur", 1, int(np.sqrt(32 * 224))) == pytest.approx(np.sqrt(0.7 * 3), rel=0.01)
    assert list(STRENGTH) == list(KINDS) and len(KINDS) == 15


def test_noise_has_the_moments_of_its_definition():
    grey = np.full((64, 64, 3), 0.5)
    rng = np.random.default_rng(0)
    assert module.gaussian_noise(grey, 0.1, rng).std() == pytest.approx(0.1, rel=0.05)
    shot = module.shot_noise(grey, 50, rng)
    assert shot.var() == pytest.approx(0.5 / 50, rel=0.05) and shot.mean() == pytest.approx(0.5, abs=0.005)
    impulse = module.impulse_noise(grey, 0.2, rng)
    assert (impulse != 0.5).mean() == pytest.approx(0.2, abs=0.01) and (impulse == 1).mean() == pytest.approx(0.1, abs=0.01)


def test_blurs_spread_a_point_as_their_kernels_say():
    point = np.zeros((41, 41, 3))
    point[20, 20] = 1
    y, x = np.mgrid[-20:21, -20:21]
    disk = module.defocus_blur(point, 5, None)[..., 0]
    assert disk.sum() == pytest.approx(1) and disk[20, 20] == pytest.approx(1 / (np.pi * 25), rel=0.03)
    assert abs(disk[np.hypot(y, x) > 5.6]).max() < 1e-12 and np.allclose(disk, disk.T)
    line = module.motion_blur(point, 4, np.random.default_rng(3))[..., 0]
    moments = np.array([[(line * a * b).sum() for a in (y, x)] for b in (y, x)])
    small, large = np.linalg.eigvalsh(moments)
    assert line.sum() == pytest.approx(1) and large > 3**2 and small < 0.3
    assert moments[1, 1] > moments[0, 0]  # nearer to the horizon than to the plumb line


def test_filters_against_sums_by_hand():
    rng = np.random.default_rng(0)
    x, kernel = rng.random((6, 7, 2)), rng.random((3, 3))
    wide, want = np.pad(x, ((1, 1), (1, 1), (0, 0)), "symmetric"), np.zeros_like(x)
    for i in range(6):
        for j in range(7):
            for a in range(3):
                for b in range(3):
                    want[i, j] += wide[i + 2 - a, j + 2 - b] * kernel[a, b] / kernel.sum()
    np.testing.assert_allclose(module._filtered(x, kernel), want, atol=1e-12)
    np.testing.assert_allclose(module._sampled(x, np.array([[1.25]]), np.array([[2.5]]))[0, 0],
                               0.75 * (x[1, 2] + x[1, 3]) / 2 + 0.25 * (x[2, 2] + x[2, 3]) / 2)  # fmt: skip
    np.testing.assert_allclose(module._sampled(x, np.array([[-3.0]]), np.array([[99.0]]))[0, 0], x[0, 6])


def test_zoom_keeps_the_centre_and_pulls_the_rest():
    picture = np.zeros((33, 33, 3))
    picture[16, 16], picture[16, 28] = 1, 1
    out = module.zoom_blur(picture, 1.3, None)[..., 0]
    assert out[16, 16] > 0.5 and out[16, 28] < 0.5
    assert out[16, 29:].sum() > 0.3 and out[16, 20:28].sum() < 1e-9  # outwards


def test_colour_kinds_against_their_formulas():
    x = np.array([[[0.2, 0.4, 0.1], [0.0, 0.0, 0.0], [0.9, 0.9, 0.3]]])
    np.testing.assert_allclose(module.brightness(x, 0.2, None), [[[0.3, 0.6, 0.15], [0.2] * 3, [1.0, 1.0, 1 / 3]]])
    mean = x.mean((0, 1))
    np.testing.assert_allclose(module.contrast(x, 0.4, None), mean + 0.4 * (x - mean))
    foggy = module.fog(np.zeros((32, 32, 3)), 1.5, np.random.default_rng(0))
    assert foggy.min() >= 0 and foggy.max() < 2e-3  # nothing there is bright


def test_digital_kinds():
    blocks = np.kron(np.random.default_rng(0).random((4, 4, 3)), np.ones((4, 4, 1)))
    np.testing.assert_allclose(module.pixelate(blocks, 0.25, None), blocks)  # squares that are there already
    np.testing.assert_allclose(module.pixelate(scene(32, 0) / 255, 1.0, None), scene(32, 0) / 255)
    picture, data = scene(32, 1), io.BytesIO()
    Image.fromarray(picture).save(data, "JPEG", quality=80)
    np.testing.assert_array_equal(corrupt(picture, "jpeg", 1), np.asarray(Image.open(data)))


def test_elastic_shifts_are_as_large_as_said():
    y, x = np.mgrid[:64, :64] / 64.0
    places = np.stack([y, x, 0 * x], -1)
    moved = 64 * (module.elastic(places, 2.0, np.random.default_rng(0)) - places)[12:-12, 12:-12, :2]
    assert 1.2 < np.sqrt((moved**2).mean()) < 3


def test_weather_makes_paler():
    picture = np.full((64, 64, 3), 60, np.uint8)
    for kind in ("snow", "frost", "fog"):
        out = corrupt(picture, kind, 4)
        assert out.mean() > (60 if kind != "fog" else 30) and out.std() > 3
    flakes = corrupt(picture, "snow", 5)
    assert (flakes.min(-1) > 120).mean() > 0.01


def test_mistakes():
    picture = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="corruption 'rain' is not known: use one of gaussian_noise"):
        corrupt(picture, "rain", 1)
    for severity in (0, 6):
        with pytest.raises(UserError, match="use 1 to 5"):
            corrupt(picture, "fog", severity)
