"""GALIP, tiny, around a CLIP made for the test, draws the colour that a caption names; on shuffled captions it does not.

No CLIP ships. What stands for one: a vision transformer for pictures of 16 px, trained to match the sentence codes of the
shipped text encoder, which is its text tower. It and GALIP see the same pairs, as they are or shuffled. GALIP has no label
term here, and so no use for its stage 1.
The shipped classifier judges 512 pictures of held-back captions. Chance is 12.5 % of the colours; a generator that heeds
captions without knowing what they mean may be right about one colour of the eight, or two.
"""

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gates import command
from supcon_jax import core, shard
from supcon_jax.build import weights
from supcon_jax.build.names import net
from supcon_jax.build.networks import SHIPPED, attribute_net, prepared
from supcon_jax.core import Aux, Player, Task
from supcon_jax.data import source as sources
from supcon_jax.data.labels import shuffle_pairs
from supcon_jax.data.synthetic import shapes
from supcon_jax.data.vocab import Vocab
from supcon_jax.gans.galip import galip
from supcon_jax.losses import match
from supcon_jax.nets import galip as nets
from supcon_jax.nets.clip import CLIP, ImageTransformer
from supcon_jax.nets.init import on_host
from supcon_jax.nets.text import TextEncoder
from supcon_jax.ops.arrays import unit_rms
from supcon_jax.ops.rows import dense
from supcon_jax.views.image import signed

SIDE, WORDS, RECORDS, HELD = 16, 12, 4096, 512
CLIP_STEPS, STEPS = 200, 200  # seed 0 had 46.3 percent with 300 of each, 40.6 with 600 and 400
LEAST, MOST = 35.0, 25.0  # percent of colours right, of GALIP and of its twin


@functools.cache
def world():
    """(pairs to train on, held-back pairs, vocabulary, text encoder, its weights)."""
    tree, about, _ = weights.load(SHIPPED / "shapes.safetensors", "attngan")
    vocab = Vocab(tuple(about["vocab"]))
    encoder = net(about["nets"]["text"], "text", vocab=len(vocab))
    train, held = (halved(shapes(split, records=r)) for split, r in (("train", RECORDS), ("test", HELD)))
    return train, held, vocab, encoder, tree["text"]


def halved(source):
    """The pictures at half their side, the mean of 2 x 2 pixels."""

    def image(i):
        return source.image(i).reshape(SIDE, 2, SIDE, 2, 3).mean((1, 3)).round().astype(np.uint8)

    return dataclasses.replace(source, image=image)


def batches(source, batch, **options):
    return sources.batches(source, world()[2], batch=batch, size=SIDE, words=WORDS, **options)


def trainer(task, steps, batch):
    """train(frozen, pairs, seed) -> the state after so many steps, none of which may have been skipped; compiled once."""
    step = jax.jit(functools.partial(core.step, task), donate_argnums=0)

    def train(frozen, source, seed=0):
        given = batches(source, batch, seed=seed)
        state = on_host(lambda key, batch: core.init_state(task, key, batch), jax.random.key(seed), next(given))
        for _ in range(steps):
            state, metrics = step(state, frozen, next(given))
        assert metrics["skipped"] == 0
        return state

    return train


def about(steps, batch):
    return core.About(RECORDS, 64, None, steps, RECORDS // batch, dense, shard.data_mesh(1))


def adam(rate, steps, *moments):
    return optax.adam(optax.cosine_decay_schedule(rate, steps), *moments)


class Reader(nn.Module):
    """The shipped sentence encoder in the place of CLIP's text tower, its codes of unit root mean square."""

    encoder: TextEncoder
    embed: int = 64

    def __call__(self, text, train: bool = False):
        words, sentence = self.encoder(text, (text > 0).sum(1))
        return words, unit_rms(sentence)


def stand_in():
    """The module that stands for a CLIP."""
    return CLIP(ImageTransformer(64, SIDE, 4, 32, 9, 2), Reader(world()[3]))


def pretrainer():
    """pretrain(pairs) -> its tree, trained on these pairs."""
    params, tower = world()[4], stand_in()

    def init(key, batch):
        return {"params": {"model": tower.image.init(key, signed(batch["image"][:, 0]))["params"]}}

    def loss(own, state, frozen, batch, key):
        _, code = tower.image.apply({"params": own["model"]}, nets.preprocess(signed(batch["image"][:, 0]), SIDE))
        _, sentence = tower.text.apply({"params": {"encoder": params}}, batch["text"][:, 0])
        return sum(match.sentences(code, sentence)), Aux({}, {}, state.memory)

    train_tower = trainer(Task(init, (Player("model", loss, adam(2e-3, CLIP_STEPS)),)), CLIP_STEPS, 64)

    def pretrain(source):
        return {"params": {"image": train_tower({}, source).params["model"], "text": {"encoder": params}}}

    return pretrain


@functools.cache
def judge():
    """Pictures [n, h, w, 3] in 0..255 -> the colours that the shipped classifier sees."""
    apply, *_ = attribute_net()
    return jax.jit(lambda images: apply(prepared(images, 32))[1]["colour"].argmax(1))


def colour(task, frozen, state):
    """Percent of held-back captions whose pictures have, to the shipped classifier, the colour that they name."""
    held, right, draw = world()[1], [], jax.jit(task.heads["generate"])
    for i, batch in enumerate(batches(held, 128, train=False)):
        one = {name: batch[name][:, 0] for name in ("text", "text_len")}
        seen = judge()(jnp.round(127.5 * (draw(state, frozen, one, jax.random.key(i)) + 1)))
        right.append(np.asarray(seen) == held.known["colour"][batch["index"][:, 0]])
    return float(100 * np.concatenate(right).mean())


def scores(seed):
    """Percent of colours right of GALIP, and of its twin."""
    gen, disc = nets.Generator(8, (SIDE,), 8, 8, 1, 4, 32), nets.Discriminator(32, 16, 4)
    parts = {"gen": gen, "disc": (disc,), "clip": stand_in()}
    rates = {"disc": adam(3e-4, STEPS, 0.0, 0.9), "gen": adam(2e-3, STEPS, 0.0, 0.9)}
    task = galip(parts, rates, about(STEPS, 32), scl=0.0, sim_weight=16.0, branches=1, z=16, ema=0.98, flip=False)
    pretrain, train = pretrainer(), trainer(task, STEPS, 32)
    for source in (world()[0], shuffle_pairs(world()[0], 0)):
        frozen = {"clip": pretrain(source)}
        yield colour(task, frozen, train(frozen, source, seed))


def alone(seed):
    """scores(seed) in a process of its own."""
    code = f"import json; from gates.test_galip import scores; print(json.dumps(list(scores({seed}))))"
    return json.loads(command.answer("-c", code).splitlines()[-1])


@pytest.mark.slow
def test_draws_the_colour_that_is_asked_for_and_the_twin_does_not():
    ours, twin = alone(0)
    print(f"{ours:.1f} % of colours right, {twin:.1f} % of the twin's")
    assert ours >= LEAST and twin <= MOST


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_so_do_other_seeds(seed):
    ours, twin = alone(seed)
    print(f"{ours:.1f} % of colours right, {twin:.1f} % of the twin's")
    assert ours >= LEAST and twin <= MOST
