"""Programs for TPU slices that are not here: memory of a device and collectives, as libtpu compiles them.

Ceilings, and forms that a new compiler may change: then look at the program before changing the number.
"""

import functools
import importlib.util
import pathlib

import pytest

from supcon_jax import config as configs
from supcon_jax.build import compile, fit, target

SPEC = importlib.util.spec_from_file_location("pod", pathlib.Path(__file__).parents[2] / "benchmarks" / "pod.py")
pod = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(pod)
K, M = 2**10, 2**20
MIB, GIB = 2**20, 2**30


@pytest.fixture(autouse=True, scope="module")
def libtpu(need):
    need("libtpu", 'pip install -c constraints.txt -e ".[tpu]"')


@functools.cache
def measured(topology, n, door):
    return pod.measured(target.find(topology), n, 768, door)


PERMUTES, SUM = "collective-permute", "all-reduce"


@pytest.mark.parametrize(
    "door, ceiling, kinds",
    [
        pytest.param("ring", 8 * MIB, {PERMUTES, SUM}, marks=pytest.mark.slow),
        pytest.param("gather", 5 * GIB, {"all-gather", SUM}, marks=pytest.mark.slow),
        pytest.param("ring jaccard", 24 * MIB, {PERMUTES, SUM}, marks=pytest.mark.long),
        pytest.param("ring pallas", 64 * MIB, {PERMUTES, SUM}, marks=pytest.mark.long),
    ],
)
def test_a_million_pairs_on_256_chips(door, ceiling, kinds):
    said = measured("v5e:16x16", M, door)
    assert said["fits"] and said["devices"] == 256
    assert said["memory"]["arguments"] <= 13 * MIB and said["memory"]["outputs"] <= 13 * MIB
    assert said["memory"]["temporaries"] <= ceiling
    assert set(said["collectives"]) == kinds  # nothing travels that the door does not send


@pytest.mark.slow
@pytest.mark.parametrize("door", ["dense", "matrix"])
def test_who_holds_the_matrix_needs_a_thousand_times_more(door):
    """Of the same million pairs: the definition as the compiler splits it, and the usual loss over gathered keys."""
    said = measured("v5e:16x16", M, door)
    assert not said["fits"] and said["needs"] > 1000 * measured("v5e:16x16", M, "ring")["memory"]["temporaries"]


@pytest.mark.long
def test_sixteen_million_pairs_on_256_chips():
    said = measured("v5e:16x16", 16 * M, "ring")
    assert said["fits"] and said["memory"]["temporaries"] <= GIB


@pytest.mark.slow
def test_a_million_pairs_on_eight_chips():
    said = measured("v5e:2x4", M, "ring")
    assert said["fits"] and said["memory"]["temporaries"] <= 2 * GIB
    assert not measured("v5e:2x4", 256 * K, "matrix")["fits"]


@pytest.mark.slow
def test_a_ring_overlaps_on_a_small_slice():
    said = measured("v5e:4x4", 64 * K, "ring")
    assert said["collectives"]["collective-permute"]["synchronous"] == 0
    assert said["modelled_seconds"]["all"] == max(said["modelled_seconds"][part] for part in ("compute", "links"))


def test_what_is_too_large_says_by_how_much():
    said = measured("v5e:2x4", 256 * K, "dense")
    assert not said["fits"] and said["has"] == int(15.75 * GIB) == target.CHIPS["v5e"].memory
    assert said["needs"] > 2 * said["has"]


@pytest.mark.slow
def test_a_stage_of_a_config():
    config = configs.plain(configs.load("configs/shapes.py:classifier,tiny"))
    said = compile.one(config, "classifier", target.find("v5e:2x2"))
    assert said["fits"] and said["devices"] == 4 and said["collectives"]["all-reduce"]["synchronous"] > 0


@pytest.mark.long
@pytest.mark.parametrize("name", ["damsm", "attngan"])
def test_both_stages_of_the_main_job(name):
    """The encoders that the GAN listens to are those that the stage before would leave."""
    config = configs.plain(configs.load("configs/shapes.py:tiny"))
    said = compile.one(config, name, target.find("v5e:2x4"))
    assert said["fits"] and said["devices"] == 8
    assert 0 < said["memory"]["temporaries"] < 2**30 and 0 < said["memory"]["peak"] < 2**30
    assert sum(said["collectives"]["all-reduce"].values()) > 0  # gradients, and statistics of the whole batch
    assert said["memory"]["aliased"] > 0.5 * said["memory"]["outputs"]  # the old state is given up
    assert said["flop"] > 0 and said["modelled_seconds"]["all"] > 0
    assert len(list(compile.shown(said))) >= 5


@pytest.mark.slow
def test_the_largest_batch_is_searched_with_the_real_compiler():
    config = configs.plain(configs.load("configs/shapes.py:classifier,tiny"))
    config["data"]["args"]["records"] = 64
    *lines, last = fit.stages(config, "v5e:2x2", None, ["--config=configs/shapes.py:classifier,tiny"])
    assert "--config.classifier.batch=64" in last and "the data has no more records" in lines[-1]
