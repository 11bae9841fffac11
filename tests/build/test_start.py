"""Training from given weights: what is put where, what is written down of it, and what does not belong together."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from build.test_adopt import VOCAB, convert, plain, write_original
from gans import tiny
from supcon_jax.build import stage, start, weights
from supcon_jax.config import UserError
from supcon_jax.train import loop

CONFIG = plain("configs/shapes.py:tiny", **{"attngan.nets.gen.width": "4", "mesh.data": "1"})


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """(folder of converted weights with discriminators, the same numbers)"""
    at = tmp_path_factory.mktemp("original")
    gen, discs, _ = write_original(at / "a", CONFIG, "attngan")
    convert(CONFIG, at / "a", at / "w")
    return at / "w", gen, discs


@pytest.mark.slow
def test_a_run_begins_with_them_and_goes_on_without(original, tmp_path):
    place, gen, discs = original
    told = {"damsm": {"nets": CONFIG["damsm"]["nets"], "vocab": VOCAB.plain()}}
    built = stage.build(CONFIG, "attngan", tmp_path, evaluate=False, towers=lambda *_: ({}, told, {}))
    run = dataclasses.replace(built.run, start=start.given(CONFIG, "attngan", tmp_path, str(place)))
    state, data, saved = loop.begin(run)
    saved.save(state.replace(step=state.step + 1, params=jax.tree.map(lambda x: x + 1, state.params)), data.state())
    saved.close()
    later, _, saved = loop.begin(run)
    saved.close()
    assert int(later.step) == 1 and tiny.same(later.params, jax.tree.map(lambda x: x + 1, state.params))
    assert tiny.same({"params": state.params["gen"], "batch_stats": state.stats["gen"]}, gen)
    for size, own in discs.items():
        assert tiny.same({"params": state.params["disc"][f"d{size}"], "batch_stats": state.stats["disc"][f"d{size}"]}, own)
    assert tiny.same(state.memory["ema"], gen["params"]) and int(state.step) == 0
    assert not {x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.memory["ema"])} & {
        x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.params["gen"])}  # a step gives the state's memory away
    path = place / "attngan" / "weights.safetensors"
    assert json.loads((tmp_path / "attngan" / "start.json").read_text()) == {
        "from": str(path), "sha256": weights.load(path)[2]}


def test_a_run_goes_on_only_from_where_it_began(original, tmp_path):
    place, *_ = original
    assert start.given(CONFIG, "attngan", tmp_path, None) is None and not (tmp_path / "attngan").exists()
    assert start.given(CONFIG, "attngan", tmp_path, str(place)) and start.given(CONFIG, "attngan", tmp_path, str(place))
    with pytest.raises(UserError, match=r"was started from \S+weights.safetensors: give --from=\S+ again"):
        start.given(CONFIG, "attngan", tmp_path, None)
    tree, about, _ = weights.load(place / "attngan" / "weights.safetensors")
    tree["gen"]["params"]["image0"]["kernel"] += 1
    weights.save(tmp_path / "other.safetensors", tree, about)
    with pytest.raises(UserError, match=r"was started from \S+, not from \S+other.safetensors: use another --workdir"):
        start.given(CONFIG, "attngan", tmp_path, str(tmp_path / "other.safetensors"))
    (tmp_path / "b" / "attngan").mkdir(parents=True)
    (tmp_path / "b" / "attngan" / "config.json").write_text("{}")
    with pytest.raises(UserError, match="was started from drawn weights, not from"):
        start.given(CONFIG, "attngan", tmp_path / "b", str(place))


def test_what_cannot_begin_a_run_is_refused(original, tmp_path):
    place, *_ = original
    tree, about, _ = weights.load(place / "attngan" / "weights.safetensors")
    wide = plain("configs/shapes.py:tiny", **{"attngan.nets.gen.width": "8"})
    put = start.given(wide, "attngan", tmp_path / "a", str(place))
    built = stage.build(wide, "attngan", tmp_path / "a", evaluate=False, towers=lambda *_: (
        {}, {"damsm": {"nets": wide["damsm"]["nets"], "vocab": VOCAB.plain()}}, {}))
    with pytest.raises(UserError, match=r"weights.safetensors: tensor params/\S+ gives params/\S+ shape"):
        loop.begin(dataclasses.replace(built.run, start=put))
    weights.save(tmp_path / "w.safetensors", {"gen": tree["gen"], "text": tree["text"]}, about)
    with pytest.raises(UserError, match="a generator without discriminators, which would unlearn"):
        start.given(CONFIG, "attngan", tmp_path / "b", str(tmp_path / "w.safetensors"))
    weights.save(tmp_path / "d.safetensors", {"x": np.ones(1)}, about | {"kind": "damsm"})
    with pytest.raises(UserError, match="holds 'damsm', not 'attngan'"):
        start.given(CONFIG, "attngan", tmp_path / "b", str(tmp_path / "d.safetensors"))
    assert not (tmp_path / "b").exists()


def test_a_run_of_pictures_alone_begins_with_an_encoder(tmp_path):
    """Its weights are those of an encoder by kind, whatever its method; its probe begins anew."""
    config = plain("configs/image.py:simclr,tiny", **{"mesh.data": "1"})
    built = stage.build(config, "simclr", tmp_path, evaluate=False)
    state, _, saved = loop.begin(built.run)
    saved.close()
    own = {"params": jax.tree.map(lambda x: x + 1, state.params["model"]), "stats": state.stats["model"]}
    weights.save(tmp_path / "a" / "simclr" / "weights.safetensors", own, {"kind": "encoder"})
    put = start.given(config, "simclr", tmp_path / "b", str(tmp_path / "a"))
    begun = put(state)
    assert tiny.same(begun.params, {**state.params, "model": own["params"]}) and tiny.same(begun.stats, state.stats)
