"""Checkpoints: digests, fallback over damaged steps, what is kept, typed keys."""

import logging
import pathlib

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.core import State
from supcon_jax.train import checkpoint
from supcon_jax.train.checkpoint import Checkpoints, digest


def state(step=1, seed=0):
    """Float32, bfloat16, integers, an empty tree, a scalar and a typed key, as a real state has them."""
    rng = np.random.default_rng(seed + 100 * step)
    return State(
        step=jnp.asarray(step, jnp.int32),
        skipped=jnp.asarray([step, 0], jnp.int32),
        key=jax.random.key(seed),
        params={
            "model": {"w": jnp.asarray(rng.standard_normal((33, 17)), jnp.float32), "b": jnp.ones((5,), ml_dtypes.bfloat16)}
        },
        opt={"model": ({"mu": jnp.asarray(rng.standard_normal((33, 17)), jnp.float32)}, ())},
        stats={"model": {}},
        memory={"pointer": jnp.asarray(3, jnp.int32), "queue": jnp.asarray(rng.standard_normal((4, 3)), jnp.float32)},
    )


def saved(folder, steps=(1, 2), evals=None, **options):
    keeper = Checkpoints(folder, **options)
    for step in steps:
        keeper.save(state(step), {"position": 10 * step}, (evals or {}).get(step))
    keeper.close()
    return folder


def restored(folder, **options):
    keeper = Checkpoints(folder, **options)
    try:
        return keeper.restore(jax.tree.map(jnp.zeros_like, state(0)))
    finally:
        keeper.close()


def steps(folder):
    return sorted(int(path.name) for path in pathlib.Path(folder).iterdir() if path.name.isdigit())


def payload(folder, step):
    """The files of the state's arrays that hold data."""
    files = [path for path in (pathlib.Path(folder) / str(step)).rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(path for path in files if "d" in path.relative_to(folder).parts)


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(bytes(data))


def leaves():
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(checkpoint.without_key(state()))]


@pytest.mark.parametrize("which", range(len(leaves())), ids=leaves())
def test_digest_changes_with_any_bit_of_any_leaf(which):
    tree = checkpoint.without_key(state())
    flat, structure = jax.tree.flatten(tree)
    raw = np.array(flat[which])
    bits = raw.reshape(-1).view(np.uint8)
    bits[-1] ^= 1
    flat[which] = jnp.asarray(raw)
    changed = jax.tree.unflatten(structure, flat)
    changed = changed.replace(key=jax.random.wrap_key_data(changed.key))
    assert digest(changed) != digest(state())
    assert digest(state()) == digest(jax.tree.map(jnp.copy, state()))


def test_digest_tells_types_shapes_and_names_apart():
    one = state()
    w = one.params["model"]["w"]
    assert digest(one) != digest(one.replace(params={"model": {**one.params["model"], "w": w.reshape(17, 33)}}))
    assert digest(one) != digest(one.replace(params={"model": {"v": w, "b": one.params["model"]["b"]}}))
    zero = one.replace(memory={"x": jnp.zeros((2,), jnp.float32)})
    assert digest(zero) != digest(one.replace(memory={"x": jnp.zeros((2,), jnp.int32)}))
    assert digest(zero) != digest(one.replace(memory={"x": -jnp.zeros((2,), jnp.float32)}))  # equal, but other bits


def test_round_trip_gives_the_same_bits_and_a_typed_key(tmp_path):
    saved(tmp_path)
    back, position = restored(tmp_path)
    assert position == {"position": 20}
    assert digest(back) == digest(state(2))
    assert jnp.issubdtype(back.key.dtype, jax.dtypes.prng_key) and back.key.dtype == state().key.dtype
    np.testing.assert_array_equal(jax.random.normal(back.key), jax.random.normal(state(2).key))
    assert back.params["model"]["b"].dtype == jnp.bfloat16
    assert jax.tree.structure(back) == jax.tree.structure(state(2))


def test_nothing_saved_gives_nothing(tmp_path):
    assert restored(tmp_path / "empty") is None


def test_the_state_is_restored_to_where_the_example_lies(tmp_path):
    saved(tmp_path, steps=(1,))
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    keeper = Checkpoints(tmp_path)
    back, _ = keeper.restore(jax.device_put(state(0), everywhere))
    keeper.close()
    assert len(back.params["model"]["w"].sharding.device_set) == 4 and digest(back) == digest(state(1))


def damages():
    """name -> what is done to the newest step's folder."""

    def flipped(folder):
        path = max(payload(folder, 2), key=lambda path: path.stat().st_size)
        flip(path, path.stat().st_size // 2)

    def halved(folder):
        path = max(payload(folder, 2), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    def emptied(folder):
        for path in payload(folder, 2):
            path.write_bytes(b"")

    def gone(folder):
        for path in payload(folder, 2):
            path.unlink()

    def lied(folder):
        path = next(path for path in (folder / "2" / "extra").iterdir() if "digest" in path.read_text())
        path.write_text(path.read_text().replace('"digest": "', '"digest": "0'))

    def unsaid(folder):
        next(path for path in (folder / "2" / "extra").iterdir() if "digest" in path.read_text()).write_text("{")

    return {"one bit flipped": flipped, "cut in half": halved, "emptied": emptied,
            "deleted": gone, "other digest": lied, "no digest": unsaid}  # fmt: skip


@pytest.mark.parametrize("damage", damages().values(), ids=damages())
def test_a_damaged_newest_step_is_named_and_passed_over(tmp_path, caplog, damage):
    damage(saved(tmp_path))
    with caplog.at_level(logging.WARNING, "supcon_jax"):
        back, position = restored(tmp_path)
    assert digest(back) == digest(state(1)) and position == {"position": 10}
    said = [record.getMessage() for record in caplog.records if record.name == "supcon_jax"]
    assert len(said) == 1 and "checkpoint 2" in said[0] and str(tmp_path) in said[0] and "\n" not in said[0]


def test_a_flipped_byte_in_any_data_file_is_found(tmp_path):
    """Each data file of the newest step in turn, three places each: never a wrong state."""
    saved(tmp_path, steps=(1,))
    files = payload(tmp_path, 1)
    assert files
    for path in files:
        whole = path.read_bytes()
        for at in {0, len(whole) // 2, len(whole) - 1}:
            flip(path, at)
            try:
                back = restored(tmp_path)
            except UserError as error:
                assert "intact" in str(error)
            else:  # a byte that carries nothing
                assert digest(back[0]) == digest(state(1))
            path.write_bytes(whole)
    assert digest(restored(tmp_path)[0]) == digest(state(1))


def test_going_on_after_a_damaged_step_writes_it_anew(tmp_path):
    damages()["one bit flipped"](saved(tmp_path))
    keeper = Checkpoints(tmp_path)
    keeper.restore(state(0))
    keeper.save(state(2), {"position": 20})
    keeper.close()
    back, position = restored(tmp_path)
    assert digest(back) == digest(state(2)) and position == {"position": 20}


def test_none_intact_is_refused_in_one_line(tmp_path):
    saved(tmp_path)
    for step in (1, 2):
        for path in payload(tmp_path, step):
            flip(path, path.stat().st_size // 2)
    with pytest.raises(UserError, match=r"none of the checkpoints \[2, 1\] is intact"):
        restored(tmp_path)
    assert steps(tmp_path) == [1, 2]  # nothing is thrown away


def test_the_newest_are_kept(tmp_path):
    assert steps(saved(tmp_path, range(1, 6), latest=2)) == [4, 5]


KEPT = (
    # evals by step, mode, what is left of steps 1..5 with latest=1, best=1
    ({1: 3.0, 2: 1.0, 3: 2.0, 4: 4.0, 5: 5.0}, "min", [2, 5]),
    ({1: 3.0, 2: 1.0, 3: 2.0, 4: 9.0, 5: 5.0}, "max", [4, 5]),
    ({1: 3.0, 2: 1.0, 3: 2.0, 4: np.nan, 5: np.nan}, "min", [2, 5]),
    ({1: 3.0, 2: 7.0, 3: np.nan, 4: np.inf, 5: 5.0}, "max", [2, 5]),
    ({1: 3.0, 2: -np.inf, 3: 2.0, 4: 4.0, 5: 5.0}, "min", [3, 5]),
    ({2: 1.0}, "min", [2, 5]),  # measured less often than saved
    ({}, "min", [5]),
    ({1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 5.0}, "max", [5]),
)


@pytest.mark.parametrize("values,mode,left", KEPT)
@pytest.mark.parametrize("restarts", (False, True), ids=("one process", "a restart before each save"))
def test_the_best_and_the_newest_are_kept_whatever_the_metric_is(tmp_path, values, mode, left, restarts):
    options = {"latest": 1, "best": 1, "metric": "eval/fid", "mode": mode}
    evals = {step: {"eval/fid": value, "eval/other": -step} for step, value in values.items()}
    for steps_ in [[step] for step in range(1, 6)] if restarts else [range(1, 6)]:
        saved(tmp_path, steps_, evals, **options)
    assert steps(tmp_path) == left


def test_a_step_that_lies_there_is_not_written_twice(tmp_path):
    saved(tmp_path, steps=(1,))
    before = {path: path.stat().st_mtime_ns for path in payload(tmp_path, 1)}
    saved(tmp_path, steps=(1,))
    assert before == {path: path.stat().st_mtime_ns for path in payload(tmp_path, 1)}


def test_a_relative_folder_is_fine(tmp_path, monkeypatch):
    """As a user types it: --workdir=runs/shapes."""
    monkeypatch.chdir(tmp_path)
    saved("run/checkpoints", steps=(1,))
    assert steps(tmp_path / "run" / "checkpoints") == [1]
