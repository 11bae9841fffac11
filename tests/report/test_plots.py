"""Logarithmic curves: what stands in the figure is what was given."""

import numpy as np
import pytest
from PIL import Image

from supcon_jax.report.plots import loglog

PANELS = {"ms": {"tiled": [(2048, 4.0), (1024, 1.0)], "dense": [(1024, 2.0)]}, "MiB": {"dense": [(1024, 8.0), (2048, 32.0)]}}


def test_every_point_is_drawn_in_order(tmp_path):
    pytest.importorskip("matplotlib")
    figure = loglog(PANELS, x="rows", guides=(2,))
    times, memory = figure.axes
    drawn = {line.get_label(): line for line in times.lines}
    assert set(drawn) == {"tiled", "dense", "slope 2"}
    np.testing.assert_array_equal(drawn["tiled"].get_xydata(), [(1024, 1), (2048, 4)])
    np.testing.assert_allclose(drawn["slope 2"].get_xydata(), [(1024, 1), (2048, 4)])
    assert drawn["dense"].get_color() == memory.lines[0].get_color()
    assert {times.get_xscale(), times.get_yscale(), memory.get_yscale()} == {"log"}
    assert (times.get_xlabel(), times.get_ylabel(), memory.get_ylabel()) == ("rows", "ms", "MiB")
    figure.savefig(tmp_path / "curves.png")
    assert min(Image.open(tmp_path / "curves.png").size) > 300


def test_what_has_no_logarithm_is_named():
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="dense: ms"):
        loglog({"ms": {"dense": [(1, 0.0)]}}, x="rows")
