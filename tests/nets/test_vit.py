import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nets.once import ran
from supcon_jax.nets import init
from supcon_jax.nets.vit import Attention, ViT, quick_gelu

SMALL = ViT(8, 4, 8, 3, 2)


@pytest.fixture(scope="module")
def variables():
    return init.on_host(SMALL.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))


def picture(n=2, side=8, seed=0):
    return np.random.default_rng(seed).standard_normal((n, side, side, 3)).astype(np.float32)


def test_attention_is_its_definition():
    rng = np.random.default_rng(0)
    x, mask = rng.standard_normal((2, 5, 6)).astype(np.float32), np.tril(np.ones((5, 5), bool))
    module = Attention(2, features=4)
    made = init.on_host(module.init, jax.random.key(1), x)
    p = {name: (np.asarray(a["kernel"], np.float64), np.asarray(a["bias"])) for name, a in made["params"].items()}
    q, k, v = (x @ p[name][0] + p[name][1] for name in ("query", "key", "value"))
    want = np.zeros((2, 5, 6))
    for n in range(2):
        for h in range(2):
            part = slice(3 * h, 3 * h + 3)
            for i in range(5):
                e = np.exp(q[n, i, part] @ k[n, :, part].T / np.sqrt(3)) * mask[i]
                want[n, i, part] = e / e.sum() @ v[n, :, part]
    want = want @ p["out"][0] + p["out"][1]
    both = ran(lambda v, x: (module.apply(v, x, mask=mask), module.apply(v, x, query=x[:, 4:], mask=mask[4:])), made, x)
    np.testing.assert_allclose(both[0], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(both[1], want[:, 4:], rtol=1e-4, atol=1e-5)


def test_quick_gelu():
    np.testing.assert_allclose(quick_gelu(np.array([-1.0, 0.0, 2.0])), [-0.154204, 0, 1.935667], rtol=1e-4)


def test_prompts_reach_one_block_and_leave_no_token(variables):
    run = lambda x, prompts: SMALL.apply(  # noqa: E731
        variables, x, prompts, method=lambda m, x, p: m.run(m.start(m.patches(x)), p, keep=(0, 1)))  # fmt: skip
    both = ran(lambda x, prompt: (run(x, None), run(x, {1: prompt})), picture(), np.ones((2, 8), np.float32))
    (tokens, (first, second)), (same, kept) = both
    assert tokens.shape == same.shape == (2, 5, 8)
    np.testing.assert_array_equal(first, kept[0])
    assert np.abs(second - kept[1]).max() > 1e-4


def test_patches_follow_rows_and_another_size_is_refused(variables):
    cut = lambda x: SMALL.apply(variables, x, method="patches")  # noqa: E731
    x = picture()
    changed = x.copy()
    changed[:, 0, 7] += 1  # first row of patches, second column
    moved = np.abs(cut(x) - cut(changed)).max(axis=(0, 2))
    assert moved[1] > 0 and not moved[[0, 2, 3]].any()
    with pytest.raises(ValueError, match="16"):
        cut(picture(side=16))
    with pytest.raises(ValueError, match="3 heads"):
        jax.eval_shape(Attention(3).init, jax.random.key(0), jnp.zeros((1, 2, 8)))


def test_below_float32_the_code_stays_near(variables):
    (_, full), (_, half) = ran(
        lambda v, x: [SMALL.clone(dtype=d).apply(v, x) for d in (None, jnp.bfloat16)], variables, picture()
    )
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), full, atol=0.1)
