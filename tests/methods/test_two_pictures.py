"""Views of one picture and of two, and features handed out as a weight file says they were learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from methods.unimodal_world import PLAIN
from supcon_jax.build import pretext
from supcon_jax.methods import cmc, cpc, towers
from supcon_jax.nets.backbone import ConvTrunk
from supcon_jax.nets.init import on_host
from supcon_jax.views import recipes

KEY = jax.random.key(3)
PICTURES = np.random.default_rng(0).integers(0, 255, (4, 2, 16, 16, 3)).astype(np.uint8)


def test_a_row_of_two_pictures_gives_every_second_view_of_the_second():
    views = jax.jit(lambda image: towers.views({"image": image}, KEY, recipe="swav", size=16, small=8, change=dict(PLAIN)))
    both, one, two = (jax.device_get(views(PICTURES[:, i])) for i in (slice(0, 2), slice(0, 1), slice(1, 2)))
    for got, first, second in zip(both, one, two, strict=True):
        np.testing.assert_array_equal(got[:, 0::2], first[:, 0::2])
        np.testing.assert_array_equal(got[:, 1::2], second[:, 1::2])
        assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("method", (cmc.cmc, cpc.cpc))
def test_pairs_that_mean_nothing_are_made_within_one_view(method, monkeypatch):
    """What CMC's and CPC's twins see: lightness of one picture and colour of the other, or their halves."""
    seen = []

    def begin(nets, key, x, names):
        seen.append(np.asarray(x))
        raise KeyboardInterrupt

    monkeypatch.setattr(towers, "begin", begin)
    recipe = "cmc" if method is cmc.cmc else "digits"
    for i in (slice(0, 1), slice(1, 2), slice(0, 2)):
        task = method({}, {"model": None}, None, recipe=recipe, size=16)
        with pytest.raises(KeyboardInterrupt):
            task.init(KEY, {"image": PICTURES[:, i]})
    views = towers.views({"image": PICTURES}, KEY, recipe=recipe, size=16)[0]
    own, _, mixed = seen
    first = (np.s_[..., :1], np.s_[..., 1:]) if method is cmc.cmc else (np.s_[:, :8], np.s_[:, 8:])
    np.testing.assert_array_equal(mixed[first[0]], own[first[0]])
    np.testing.assert_array_equal(mixed[first[1]], np.asarray(views[:, 1])[first[1]])
    assert np.abs(mixed - own).max() > 0.1


@pytest.mark.slow
def test_features_are_handed_out_as_they_were_learned():
    net, x = ConvTrunk(4, 2), PICTURES[:, 0]
    v = on_host(net.init, KEY, jnp.zeros((1, 12, 12, 3)))
    tree = {"params": {"image": v["params"]}, "stats": {"image": v["batch_stats"]}}
    about = {"norm": "cifar", "stage": "own", "config": {"own": {"args": {"size": 12}}}}
    want = jax.device_get(jax.jit(lambda v, x: net.apply(v, recipes.plain(x, size=12, norm="cifar")))(v, x))
    want = want / np.linalg.norm(want, axis=1, keepdims=True)
    got = pretext.encoded(net, tree, about, x)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    assert np.abs(pretext.encoded(net, tree, {**about, "norm": "none"}, x) - want).max() > 1e-3
