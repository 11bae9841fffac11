import jax
import numpy as np
import pytest

from supcon_jax.ops import resize


def place(i, old, new, corners):
    return i * (old - 1) / (new - 1) if corners else min(max((i + 0.5) * old / new - 0.5, 0), old - 1)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize(("old", "new"), [((4, 5), (9, 7)), ((9, 6), (4, 5))])
def test_bilinear_is_its_definition(corners, old, new):
    x = np.random.default_rng(0).standard_normal((2, *old, 3)).astype(np.float32)
    got = jax.jit(lambda a: resize.bilinear(a, new, align_corners=corners))(x)
    for i in range(new[0]):
        for j in range(new[1]):
            a, b = place(i, old[0], new[0], corners), place(j, old[1], new[1], corners)
            want = 0
            for r in range(old[0]):
                for c in range(old[1]):
                    want = want + max(0, 1 - abs(a - r)) * max(0, 1 - abs(b - c)) * x[:, r, c].astype(np.float64)
            np.testing.assert_allclose(got[:, i, j], want, atol=1e-5)


@pytest.mark.parametrize(("old", "new"), [(7, 8), (128, 224), (256, 224), (4, 8)])
def test_nearest_takes_the_pixel_below(old, new):
    x = np.arange(old * 2, dtype=np.float32).reshape(1, old, 2, 1)
    got = resize.nearest(x, (new, 2))
    np.testing.assert_array_equal(got[0, :, 0, 0], [x[0, i * old // new, 0, 0] for i in range(new)])


def test_the_same_size_is_left_alone():
    x = np.ones((1, 3, 3, 1), np.float32)
    assert resize.bilinear(x, (3, 3)) is x
