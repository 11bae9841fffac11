"""The numbers of a study: means, paired differences, patterns, and what is refused."""

import math

import numpy as np
import pytest

from supcon_jax.config import UserError
from supcon_jax.report import comparison

STUDY = {"stage": "gan", "metrics": ["m", "first:e"], "reference": "off", "variants": {}, "against": []}


def run(m, e, **more):
    return {"first": {"e": e, "geometry/x": 2 * e}, "gan": {"m": m, **more}}


FOUND = {"on": {0: run(3.0, 1.0), 1: run(5.0, 2.0)}, "off": {0: run(1.0, 1.0), 1: run(2.0, 2.0)}}


def test_every_variant_less_the_reference():
    text = comparison.tabulate(STUDY, FOUND)
    assert "| metric | on | off |" in text and "| m | 4 | 1.5 |" in text and "| first:e | 1.5 | 1.5 |" in text
    assert "Less `off`" in text and "| m | +2.5 ± 6.4 (n=2) |" in text  # t = 12.706, s = 1 / sqrt(2), n = 2
    assert "| first:e | +0 ± 0 (n=2) |" in text


def test_a_pattern_stands_for_what_all_runs_measured():
    assert comparison.named({**STUDY, "metrics": ["first:*"]}, FOUND)[0] == ["first:e", "first:geometry/x", "first:seconds"]
    spread = {"on": {0: run(1.0, 1.0, kid=3.0, kid_std=1.0)}}
    assert comparison.named({**STUDY, "metrics": ["k*"]}, spread)[0] == ["kid"]
    assert comparison.named({**STUDY, "metrics": ["kid_std"]}, spread)[0] == ["kid_std"]
    part = {"on": {0: run(1.0, 1.0, fid=3.0)}, "off": {0: run(1.0, 1.0)}}
    with pytest.raises(UserError, match=r"^study: metric 'f\*' was not measured; use one of: m, seconds$"):
        comparison.tabulate({**STUDY, "metrics": ["f*"]}, part)
    text = comparison.tabulate({**STUDY, "metrics": ["m", "f*"], "lenient": True}, part)
    assert "Not measured by this config: f*" in text
    with pytest.raises(UserError, match="'second:m' is of a stage that was not run; there are first, gan"):
        comparison.tabulate({**STUDY, "metrics": ["second:m"]}, part)


def test_a_number_that_is_not_finite_is_told_as_such():
    found = {"on": {0: run(math.nan, 1.0), 1: run(1.0, 2.0)}, "off": FOUND["off"]}
    assert "| m | not finite |" in comparison.tabulate(STUDY, found)
    assert "| seconds | not finite |" in comparison.tabulate({**STUDY, "metrics": ["seconds"]}, FOUND)  # nobody took the time


def test_curves_lie_on_the_axis():
    study = {**STUDY, "axis": {"one": {"on": 2, "off": 1}, "two": {"off": 3}}}
    drawn = comparison.curves(study, FOUND)["m"]
    assert drawn["one"] == [(1, 1.5, pytest.approx(6.353, abs=1e-3)), (2, 4.0, pytest.approx(12.706, abs=1e-3))]
    assert drawn["two"] == [(3, 1.5, pytest.approx(6.353, abs=1e-3))]
    assert comparison.axis({"axis": {"on": 2}}) == {"": {"on": 2}}


def test_a_grid_has_a_cell_for_each_variant():
    study = {**STUDY, "metrics": ["m", "seconds"], "grid": {"on": ("a", "b"), "off": ("b", "b"), "none": ("c", "c")}}
    drawn = comparison.grids(study, FOUND)
    assert list(drawn) == ["m"] and drawn["m"][:2] == (["a", "b"], ["b"]) and drawn["m"][2].tolist() == [[4.0], [1.5]]
    study["grid"]["off"] = ("b", "a")
    rows, columns, means = comparison.grids(study, FOUND)["m"]
    assert (rows, columns) == (["a", "b"], ["b", "a"]) and np.isnan(means).tolist() == [[False, True], [True, False]]
    assert "`m`:\n\n|  | b | a |\n|---|---:|---:|\n| a | 4 |  |\n| b |  | 1.5 |\n" in comparison.tabulate(study, FOUND)


def test_pairs_that_another_config_does_not_measure_are_left_out():
    study = {**STUDY, "against": [("first:e", "m"), ("first:e", "first:z"), ("second:e", "m")]}
    assert comparison.facing(study, FOUND) == study["against"]
    assert comparison.facing({**study, "lenient": True}, FOUND) == [("first:e", "m")]


def test_many_variants_are_rows():
    found = {f"v{i}": {0: run(float(i), 1.0)} for i in range(comparison.WIDE + 1)}
    text = comparison.tabulate({**STUDY, "reference": "v0"}, found)
    assert "| variant | m | first:e |\n|---|---:|---:|\n| v0 | 0 | 1 |\n| v1 | 1 | 1 |" in text
    assert "| metric | v0 |" in comparison.tabulate({**STUDY, "reference": "v0"}, dict(list(found.items())[:-1]))


def test_who_goes_with_whom():
    assert comparison.together(STUDY, FOUND, "first:e", "m").endswith("+0.45 over 4 runs")  # two means are no order
    assert comparison.together(STUDY, {"on": {0: run(1.0, 1.0)}}, "first:e", "m").endswith("not defined")
