"""GALIP's stage 1: its terms by name from CLIP's own modules, where the heads begin, blocks as offsets, what it leaves."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gans import tiny
from supcon_jax import core
from supcon_jax.config import UserError
from supcon_jax.losses import contrast, match, terms
from supcon_jax.methods.clip_heads import clip_heads, export, moved, still
from supcon_jax.nets.clip import CLIP, ImageTransformer, TextTransformer, standardise
from supcon_jax.ops.arrays import unit

EMBED, DIM = 8, 6
TOWER = CLIP(ImageTransformer(EMBED, 16, 8, 8, 3, 2), TextTransformer(EMBED, tiny.VOCAB, tiny.WORDS, 8, 2, 2))


def made(**options):
    return clip_heads({"clip": TOWER}, tiny.keeping(), tiny.about(), **{"flip": False, "dim": DIM} | options)


@pytest.fixture(scope="module")
def world():
    """(frozen, batch, task with one block of each tower, state, state and metrics after one step)."""
    blank = jax.eval_shape(TOWER.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)), jnp.zeros((1, 5), jnp.int32))
    frozen, batch, task = {"clip": tiny.fill(blank, 3)}, tiny.pairs(), made(blocks=1)
    state = tiny.start(task, batch)
    after = tiny.stepper(task, state, frozen, batch)(state, frozen, batch)
    return frozen, batch, task, state, jax.device_get(after)


def codes(params, frozen, batch):
    """Codes [n, 2, DIM] of pictures and texts, from CLIP's own modules."""
    tree = moved(frozen["clip"]["params"], params)
    n = len(batch["text"])
    pictures = jnp.asarray(batch["image"], jnp.float32).reshape(2 * n, 16, 16, 3) / 255
    code = TOWER.image.apply({"params": tree["image"]}, standardise(pictures))[1] @ params["heads"]["image"]
    text = TOWER.text.apply({"params": tree["text"]}, batch["text"].reshape(2 * n, -1))[1] @ params["heads"]["text"]
    return code.reshape(n, 2, DIM), text.reshape(n, 2, DIM)


def test_the_loss_is_matching_on_each_branch_and_the_label_term_over_both(world):
    frozen, batch, _, state, (_, metrics) = world

    def by_hand(own, frozen, batch):
        code, text = codes(own, frozen, batch)
        want = {}
        for b in (0, 1):
            want[f"s0_{b}"], want[f"s1_{b}"] = match.sentences(code[:, b], text[:, b], batch["label"][:, b], gamma=10.0)
        flat = {name: batch[name].reshape(16) for name in ("label", "index")}
        rows = [unit(x.reshape(16, DIM)) for x in (code, text)]
        return want | {"scl": contrast.label_supcon(*rows, flat["label"], index=flat["index"], scale=10.0)[0]}

    own = state.params["model"]
    want = jax.device_get(tiny.compiled(by_hand, own, frozen, batch)(own, frozen, batch))
    for name, value in want.items():
        np.testing.assert_allclose(metrics[f"model/{name}"], value, rtol=1e-4, err_msg=name)
    assert metrics["model/loss"] == pytest.approx(sum(map(float, want.values())), rel=1e-4)
    assert metrics["skipped"] == 0 and "model/sentences/top1_percent" in metrics


@pytest.mark.parametrize("term", [pytest.param("unicl", marks=pytest.mark.slow), "label_head"])
def test_another_term_takes_the_label_term_s_place(world, term):
    frozen, batch, *_ = world
    task = made(term=term)
    state = tiny.start(task, batch)
    own = state.params["model"]

    def loss(state):
        return task.players[0].loss(state.params, state, frozen, batch, jax.random.key(0))

    def by_hand(own, frozen, batch):
        code, text = codes(own, frozen, batch)
        head = own.get("label_head", {}).get("dense")
        logits = code @ head["kernel"] + head["bias"][None, None] if head else None
        seen = terms.Seen(code, text, batch["label"], batch["index"], logits=logits)
        return terms.label_term(seen, term=term, temperature=0.1)[0]

    _, aux = tiny.compiled(loss, state)(state)
    want = tiny.compiled(by_hand, own, frozen, batch)(own, frozen, batch)
    assert aux.metrics["scl"] == pytest.approx(float(want), rel=1e-4)


def test_a_term_of_words_and_regions_is_refused():
    with pytest.raises(UserError, match=r"^config\.clip_heads\.args\.term='xmc' .* use supcon, unicl, ntxent or label_head$"):
        made(term="xmc")
    made(term="xmc", scl=0.0)


def test_heads_and_last_blocks_learn_and_clip_is_an_argument(world):
    _, _, _, state, (after, _) = world
    grads = after.opt["model"]  # the last gradient
    assert set(grads["blocks"]["image"]["trunk"]) == {"block2"} and set(grads["blocks"]["text"]) == {"block1"}
    names = {tuple(k.key for k in path): g for path, g in jax.tree_util.tree_leaves_with_path(grads)}
    idle = {name[-2:] for name, g in names.items() if np.abs(g).max() < 1e-6}
    assert idle <= {("key", "bias")}, idle  # what all keys share moves no softmax
    assert jax.tree.structure(after) == jax.tree.structure(state)


def test_both_heads_begin_as_one_matrix_that_keeps_likeness():
    """Orthonormal columns; no parameter is shared by two leaves, which donation would refuse."""
    heads = made().init(jax.random.key(1), tiny.pairs())["params"]["model"]
    assert set(heads) == {"heads"}
    image, text = heads["heads"]["image"], heads["heads"]["text"]
    np.testing.assert_array_equal(image, text)
    assert image.unsafe_buffer_pointer() != text.unsafe_buffer_pointer()
    np.testing.assert_allclose(image.T @ image, np.eye(DIM), atol=1e-5)


def test_offsets_of_zero_are_clip_itself_and_others_are_added(world):
    frozen, *_ = world
    params = frozen["clip"]["params"]
    assert tiny.same(moved(params, {"blocks": still(TOWER, 2)}), params) and tiny.same(moved(params, {}), params)
    own = {"heads": {"image": 1, "text": 2}, "blocks": jax.tree.map(lambda x: x + 1, still(TOWER, 1))}
    left = export(own, frozen["clip"])
    assert left["heads"] == own["heads"]
    for tower, block, others in (("text", "block1", "block0"), ("image", "block2", "block1")):
        pick = (lambda t: t["text"]) if tower == "text" else (lambda t: t["image"]["trunk"])
        assert tiny.same(pick(left["params"])[others], pick(params)[others])
        want = jax.tree.map(lambda x: x + 1, pick(params)[block])
        assert tiny.same(pick(left["params"])[block], want)


def test_without_a_label_term_or_blocks_there_is_neither(world):
    frozen, batch, *_ = world
    task = made(scl=0.0, branches=1)
    state = jax.eval_shape(functools.partial(core.init_state, task), jax.random.key(0), batch)
    after, metrics = jax.eval_shape(functools.partial(core.step, task), state, frozen, batch)
    assert "model/scl" not in metrics and "model/s0_1" not in metrics and set(after.params["model"]) == {"heads"}


def test_heads_are_the_codes_that_it_learns(world):
    frozen, batch, task, state, _ = world
    one = {name: batch[name][:, 0] for name in ("image", "text", "text_len")}

    def run(state, frozen, one):
        return [task.heads[name](state, frozen, one, jax.random.key(0))[1] for name in ("image", "text")]

    said = jax.jit(run)(state, frozen, one)
    for got, want in zip(said, jax.jit(codes)(state.params["model"], frozen, batch), strict=True):
        np.testing.assert_allclose(got, want[:, 0], rtol=1e-4, atol=1e-5)
