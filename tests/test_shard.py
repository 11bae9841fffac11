"""Mesh, divisors of batches, and where arrays lie."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from supcon_jax import shard


@pytest.mark.parametrize(
    "batch,devices,expected",
    [(20, 8, 5), (14, 8, 7), (10, 8, 5), (24, 8, 8), (48, 8, 8), (32, 8, 8), (2, 8, 2), (7, 8, 7), (11, 8, 1), (48, 1, 1),
     (20, 4, 4), (14, 4, 2), (48, 256, 48), (4096, 256, 256)],
)  # fmt: skip
def test_auto_takes_the_largest_divisor_of_the_batch(batch, devices, expected):
    assert shard.data_devices(batch, "auto", devices) == expected


def test_auto_counts_the_devices_of_this_machine():
    assert jax.device_count() == 8
    assert shard.data_devices(20) == 5 and shard.data_devices(64) == 8


@pytest.mark.parametrize("batch,wanted,devices", [(20, 8, 8), (20, 3, 8), (32, 16, 8), (10, 4, 8)])
def test_a_number_that_does_not_divide_the_batch_or_is_not_there_is_refused(batch, wanted, devices):
    with pytest.raises(ValueError, match=f"mesh.data={wanted}.*batch {batch}.*{devices} devices.*auto"):
        shard.data_devices(batch, wanted, devices)


def test_a_number_that_fits_is_taken():
    assert shard.data_devices(20, 4, 8) == 4
    assert shard.data_devices(20, "2", 8) == 2


def test_mesh_has_one_automatic_axis_over_the_first_devices():
    mesh = shard.data_mesh(5)
    assert mesh.axis_names == ("data",) and mesh.shape == {"data": 5}
    assert mesh.axis_types == (AxisType.Auto,)
    assert mesh.devices.tolist() == jax.devices()[:5]


def test_place_splits_rows_over_the_devices_in_order():
    mesh = shard.data_mesh(5)
    batch = {"image": np.arange(20 * 2 * 3, dtype=np.uint8).reshape(20, 2, 3), "label": np.arange(20, dtype=np.int32)}
    placed = shard.place(batch, mesh)
    assert set(placed) == set(batch)
    for name, x in placed.items():
        np.testing.assert_array_equal(np.asarray(x), batch[name])
        assert x.dtype == batch[name].dtype and x.sharding.spec == PartitionSpec("data")
        for piece in x.addressable_shards:
            assert piece.data.shape[0] == 4
            np.testing.assert_array_equal(np.asarray(piece.data), batch[name][piece.index])
    assert [piece.device for piece in placed["label"].addressable_shards] == jax.devices()[:5]


def test_replicate_puts_the_whole_tree_on_every_device():
    mesh = shard.data_mesh(4)
    tree = {"w": np.arange(6.0, dtype=np.float32).reshape(2, 3), "deep": {"n": np.int32(3)}, "key": jax.random.key(1)}
    out = shard.replicate(tree, mesh)
    assert out["w"].is_fully_replicated and len(out["w"].addressable_shards) == 4
    for piece in out["w"].addressable_shards:
        np.testing.assert_array_equal(np.asarray(piece.data), tree["w"])
    assert out["deep"]["n"] == 3
    np.testing.assert_array_equal(jax.random.key_data(out["key"]), jax.random.key_data(jax.random.key(1)))


def test_arithmetic_over_the_mesh_equals_arithmetic_on_one_device():
    """Automatic axes: a product of a split and a replicated array needs no annotation."""
    x, w = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32), np.ones((3, 2), np.float32)
    mesh = shard.data_mesh(5)
    split = shard.place({"x": x}, mesh)["x"]
    np.testing.assert_allclose(np.asarray(jax.jit(lambda x, w: x @ w)(split, shard.replicate(w, mesh))), x @ w, rtol=1e-5)


@pytest.mark.parametrize(
    "shape,split,expected",
    [((16, 24), 1024, (None, "data")), ((24, 16), 1024, ("data",)), ((16, 16), 1024, ("data",)), ((16, 24), 1537, ()),
     ((16, 24), 1536, (None, "data")), ((30, 24), 0, (None, "data")), ((31, 30), 0, ()), ((), 0, ()), ((16, 24), None, ()),
     ((0, 8), 0, (None, "data")), ((3, 3, 64, 128), 1024, (None, None, None, "data"))],
)  # fmt: skip
def test_large_leaves_are_cut_along_their_longest_axis_that_divides(shape, split, expected):
    mesh = shard.data_mesh(8)
    leaf = jax.ShapeDtypeStruct(shape, np.float32)
    found = shard.shardings({"w": leaf}, mesh, split)["w"]
    assert found.spec == PartitionSpec(*expected) and found.mesh == mesh


def test_a_cut_tree_is_whole_again_on_the_host():
    tree = {"w": np.arange(64.0, dtype=np.float32).reshape(2, 32), "n": np.int32(3), "key": jax.random.key(1)}
    laid = shard.lay(tree, shard.data_mesh(8), 64)
    assert [piece.data.shape for piece in laid["w"].addressable_shards] == [(2, 4)] * 8
    assert laid["key"].dtype == tree["key"].dtype and laid["n"].is_fully_replicated
    back = shard.whole({name: laid[name] for name in ("w", "n")})
    np.testing.assert_array_equal(back["w"], tree["w"])
    assert isinstance(back["w"], np.ndarray) and back["n"] == 3
    assert shard.shardings(tree, shard.data_mesh(1), 0)["w"].spec == PartitionSpec()
    assert shard.lay(tree, shard.data_mesh(2), 0)["key"].sharding.spec == PartitionSpec()  # two words, and yet not parted


def test_a_queue_is_cut_along_the_rows_of_its_slots():
    """Whatever the limit is: by its path, and only below memory."""
    def leaf(*shape):
        return jax.ShapeDtypeStruct(shape, np.float32)

    slots = {"rows": {"x": leaf(3, 16, 64), "label": leaf(3, 16)}, "next": leaf()}
    state = {"memory": {"queue": slots, "deep": {"text_queue": leaf(8, 24)}, "ema": leaf(8, 24), "queue_odd": leaf(8, 30)},
             "params": {"queue": leaf(8, 24)}}  # fmt: skip
    for split in (None, 0):
        found = jax.tree.map(lambda s: s.spec, shard.shardings(state, shard.data_mesh(8), split))
        rows, rest = PartitionSpec(None, "data"), PartitionSpec() if split is None else PartitionSpec(None, "data")
        memory = found["memory"]
        assert memory["queue"] == {"rows": {"x": rows, "label": rows}, "next": PartitionSpec()}
        assert memory["deep"] == {"text_queue": rows} and memory["queue_odd"] == PartitionSpec()
        assert memory["ema"] == found["params"]["queue"] == rest


@pytest.mark.parametrize("batch,wanted,expected", [(12, "auto", 6), (20, "auto", 4), (24, 4, 4), (2, "auto", 2)])
def test_every_process_gets_as_many_devices(batch, wanted, expected):
    assert shard.data_devices(batch, wanted, devices=8, processes=2) == expected


def test_a_batch_that_leaves_a_process_short_is_refused():
    with pytest.raises(ValueError, match="mesh.data=auto: batch 7 cannot be split over 2 processes"):
        shard.data_devices(7, "auto", devices=8, processes=2)
    with pytest.raises(ValueError, match="mesh.data=3: batch 24 cannot be split so over 8 devices of 2 processes; use auto"):
        shard.data_devices(24, 3, devices=8, processes=2)
