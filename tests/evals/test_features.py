"""Features of real pictures, and the cache that must never answer for something else."""

import numpy as np
import pytest

from evals import toys
from supcon_jax.config import UserError
from supcon_jax.evals.features import extract, load, real_features, save
from supcon_jax.evals.streams import reals


def test_extract_keeps_order_and_drops_padding():
    plain, label, size, bad, content = extract([toys.network(), toys.network("b")], reals(toys.world()))
    padded, *_, same = extract([toys.network()], reals(toys.world(padding=5)))
    assert content == same != extract([toys.network()], reals(toys.world(seed=1)))[-1]
    assert size == (8, 8) and bad == 0 and label.tolist() == [i % 4 for i in range(96)] and set(plain) == {"toy", "b"}
    np.testing.assert_array_equal(plain["toy"][0], padded["toy"][0])
    want = toys.look(np.concatenate([b["image"][:, 0] for b in toys.world()]))
    np.testing.assert_array_equal(plain["toy"][0], want[0])
    np.testing.assert_array_equal(plain["toy"][1], want[1].astype(np.float32))


def test_features_that_are_not_finite_are_refused():
    def broken(images):
        x, _ = toys.look(images)
        x[3] = np.inf
        return x, None

    with pytest.raises(ValueError, match="features of toy: 3 of 96 rows"):
        extract([toys.network(features=broken)], reals(toys.world()))
    with pytest.raises(ValueError, match="empty"):
        extract([toys.network()], reals([]))


def test_cache_round_trip_and_refusals(tmp_path):
    path, x, label = tmp_path / "f.npz", np.float32(np.eye(3)), np.arange(3)
    save(path, x, label, "what")
    got = load(path, "what")
    np.testing.assert_array_equal(got[0], x)
    np.testing.assert_array_equal(got[1], label)
    assert [p.name for p in tmp_path.iterdir()] == ["f.npz"]
    with pytest.raises(UserError, match="something else.*delete"):
        load(path, "other")
    with np.load(path) as file:
        kept = dict(file)
    for name, value in (
        ("features", x + 1e-7),
        ("label", label[::-1]),
        ("sha256", np.array("0" * 64)),
        ("meta", np.array("x")),
    ):
        np.savez(path, **(kept | {name: value}))
        with pytest.raises(UserError, match="hash"):
            load(path, "what" if name != "meta" else "x")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        load(path, "what")
    save(path, x, None, "what")
    assert load(path, "what")[1] is None


def test_real_features_are_measured_once(tmp_path):
    calls = []

    def counted(images):
        calls.append(len(images))
        return toys.look(images)

    net = toys.network(features=counted)
    ask = dict(origin="toys/test set", cache=tmp_path)
    first = real_features(net, toys.world(), **ask)
    again = real_features(net, toys.world(), **ask)
    assert len(calls) == 3 and len(list(tmp_path.iterdir())) == 1
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert first[2] == again[2] == (8, 8) and first[3] == again[3] and len(first[3]) == 16
    real_features(net, toys.world(seed=1), **ask)  # other pictures under the same name
    real_features(net, toys.world(), origin="toys/train", cache=tmp_path)
    real_features(net, toys.world(), limit=96, **ask)
    other = toys.Network("toy", "cd" * 32, 8, "none", counted)
    real_features(other, toys.world(), **ask)
    assert len(calls) == 3 * 5 and len(list(tmp_path.iterdir())) == 5
    with pytest.raises(ValueError, match="no pictures in toys/test set"):
        real_features(net, iter([]), **ask)


@pytest.mark.parametrize("field", ("image", "label"))
def test_a_change_in_the_last_picture_is_measured_anew(tmp_path, field):
    ask = dict(origin="toys", cache=tmp_path)
    before = real_features(toys.network(), toys.world(), **ask)
    changed = toys.world()
    changed[-1][field] = changed[-1][field].copy()
    changed[-1][field][-1, 0] += 1
    after = real_features(toys.network(), changed, **ask)
    assert len(list(tmp_path.iterdir())) == 2
    assert (before[3] != after[3]) == (field == "image") and (before[1] != after[1]).any() == (field == "label")
    assert real_features(toys.network(), toys.world(records=64), limit=64, **ask)[3] == real_features(
        toys.network(), toys.world(records=64, batch=16), limit=64, **ask)[3]  # whatever batches they come in


def test_a_damaged_cache_is_not_used(tmp_path):
    ask = dict(origin="toys", cache=tmp_path)
    real_features(toys.network(), toys.world(), **ask)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="delete the file"):
        real_features(toys.network(), toys.world(), **ask)
