"""Logarithmic curves: what stands in the figure is what was given."""

import numpy as np
import pytest
from PIL import Image

from supcon_jax.report.plots import clouds, curves, loglog, maps, save

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


def test_curves_and_clouds_hold_what_was_given(tmp_path):
    pytest.importorskip("matplotlib")
    panels = {"fid": {"with": [(2, 5.0, 1.0), (1, 4.0, 0.5)], "without": [(1, 6.0, 0.0)]}, "kid": {"with": []}}
    figure = curves(panels, x="weight")
    fid, kid = figure.axes
    drawn = {bars.get_label(): bars for bars in fid.containers}
    np.testing.assert_array_equal(drawn["with"].lines[0].get_xydata(), [(1, 4), (2, 5)])
    (segments,) = drawn["with"].lines[2]
    np.testing.assert_array_equal([s[:, 1] for s in segments.get_segments()], [(3.5, 4.5), (4, 6)])
    assert (fid.get_title(), fid.get_xlabel(), kid.get_title()) == ("fid", "weight", "kid") and not kid.containers
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["with", "without"]
    assert not curves({"fid": {"": [(1, 1.0, 0.0)]}}, x="x").legends
    cloud = clouds({("a", "b"): {"one": [(1, 2), (3, 4)], "two": [(5, 6)]}})
    np.testing.assert_array_equal(cloud.axes[0].lines[0].get_xydata(), [(1, 2), (3, 4)])
    save(figure, tmp_path / "c.svg")
    assert b"<svg" in (tmp_path / "c.svg").read_bytes()[:500]


def test_a_map_tells_the_number_of_each_cell():
    pytest.importorskip("matplotlib")
    cells = np.array([[1.0, np.nan], [2.5, 10.0]])
    axes = maps({"knn": (["crop", "blur"], ["x", "y"], cells)}).axes[0]
    assert {t.get_position(): t.get_text() for t in axes.texts} == {(0, 0): "1", (0, 1): "2.5", (1, 1): "10"}
    assert [t.get_text() for t in axes.get_yticklabels()] == ["crop", "blur"] and axes.get_title() == "knn"
    assert {t.get_text(): t.get_color() for t in axes.texts} == {"1": "black", "2.5": "black", "10": "white"}
    np.testing.assert_array_equal(axes.images[0].get_array().filled(np.nan), cells)
