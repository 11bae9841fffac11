import jax
import numpy as np
import pytest

from supcon_jax.ops import resize


def looks_at(i, old, new, place):
    if place == "centres":
        return min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
    return min(i * old / new, old - 1) if place == "left" else i * (old - 1) / (new - 1)


@pytest.mark.parametrize("place", ["centres", "corners", "left"])
@pytest.mark.parametrize(("old", "new"), [((4, 5), (9, 7)), ((9, 6), (4, 5))])
def test_bilinear_is_its_definition(place, old, new):
    x = np.random.default_rng(0).standard_normal((2, *old, 3)).astype(np.float32)
    got = jax.jit(lambda a: resize.bilinear(a, new, place=place))(x)
    for i in range(new[0]):
        for j in range(new[1]):
            a, b = looks_at(i, old[0], new[0], place), looks_at(j, old[1], new[1], place)
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
    x = np.float32(np.random.default_rng(0).integers(0, 256, (1, 3, 3, 1)))
    assert resize.bilinear(x, (3, 3)) is x
    for kernel in resize.KERNELS:
        np.testing.assert_allclose(resize.antialiased(x, (3, 3), kernel), x, atol=1e-4)
        np.testing.assert_array_equal(resize.antialiased(x, (3, 3), kernel, levels=True), x)


@pytest.mark.parametrize("kernel", resize.KERNELS)
def test_kernels_keep_a_plain_picture_and_shrink_by_averaging(kernel):
    plain = np.full((1, 12, 10, 1), 77, np.float32)
    for size in ((5, 4), (24, 30)):
        np.testing.assert_allclose(resize.antialiased(plain, size, kernel), 77, rtol=1e-6)
    x = np.random.default_rng(0).random((1, 64, 64, 1)).astype(np.float32)
    assert np.std(resize.antialiased(x, (8, 8), kernel)) < 0.1 < np.std(resize.bilinear(x, (8, 8)))  # no aliasing


def test_box_is_the_mean_of_its_block():
    x = np.random.default_rng(0).random((2, 6, 8, 3)).astype(np.float32)
    want = x.reshape(2, 3, 2, 2, 4, 3).mean((2, 4))
    np.testing.assert_allclose(resize.antialiased(x, (3, 2), "box"), want, rtol=1e-5)
