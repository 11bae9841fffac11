"""What is said when a run goes wrong, when, and how often; and that nothing is said of a healthy one."""

import math

import pytest

from supcon_jax.train import alarms, hooks


def standing(**numbers):
    """The metrics of one watched loss."""
    usual = {"contrast_nats": 3.5, "chance_nats": math.log(48), "positives_per_anchor": 1.9, "no_positive_percent": 0.0}
    usual |= {"top1_percent": 3.0, "false_negative_percent": 2.1}
    return {f"model/scl/{name}": value for name, value in (usual | numbers).items()}


def test_a_loss_without_labels_says_nothing_of_false_negatives():
    values = standing()
    del values["model/scl/false_negative_percent"]
    (said,) = alarms.Contrast().lines(values)
    assert said.endswith("top-1 3 %")
    assert alarms.Contrast().lines({"model/loss": 1.0}) == []


CAUSES = {  # numbers, from which log on it is said, and what
    "some anchors without a positive": ({"no_positive_percent": 12.5}, 1, "12 % of anchors have no positive"),
    "no anchor with a positive": (
        {"no_positive_percent": 100.0, "contrast_nats": 0.0, "chance_nats": 0.0, "positives_per_anchor": 0.0},
        1, "no anchor has a positive",
    ),
    "one key": ({"contrast_nats": 0.0, "chance_nats": 0.0, "positives_per_anchor": 1.0}, 1, "one key"),
    "all positives": ({"positives_per_anchor": 48.0}, 1, "every key is a positive"),
    "at chance": ({"contrast_nats": 0.981 * math.log(48)}, 5, "at chance or worse (ln 48 = 3.87) for 5 logs"),
}  # fmt: skip


@pytest.mark.parametrize("cause", CAUSES)
def test_each_cause_is_warned_of_once(cause):
    numbers, since, says = CAUSES[cause]
    contrast = alarms.Contrast()
    warned = [[line for line in contrast.lines(standing(**numbers)) if line.startswith("warning: ")] for _ in range(12)]
    assert [log for log, lines in enumerate(warned, 1) if lines] == [since]
    (line,) = warned[since - 1]
    assert line.startswith("warning: model/scl: ") and says in line


def test_a_loss_that_leaves_chance_is_not_warned_of():
    contrast = alarms.Contrast()
    lines = []
    for log in range(20):
        lines += contrast.lines(standing(contrast_nats=math.log(48) - (0.5 if log % 4 == 3 else 0.0)))
    assert not any(line.startswith("warning") for line in lines)
    assert not any("warning" in line for line in alarms.Contrast().lines(standing(contrast_nats=math.nan)))


def test_the_first_logs_say_how_a_contrastive_loss_stands(capsys):
    progress = hooks.Progress("damsm", steps=600, images=16, start=0)
    values = {"model/loss": 3.91, "images_per_s": 32.0, "input_wait_share": 0.0} | standing()
    for step in range(50, 350, 50):
        progress.line(step, values)
    said = [line for line in capsys.readouterr().err.splitlines() if "chance" in line]
    assert said[0] == (
        "damsm 50/600 | model/scl: contrast 3.5 of ln 48 = 3.87 (chance), 1.9 positives per anchor, top-1 3 %,"
        " 2.1 % of negatives share the anchor's label"
    )
    assert [line.split(" | ")[0] for line in said] == ["damsm 50/600", "damsm 100/600", "damsm 150/600"]


def test_codes_worse_than_chance_are_as_bad_as_at_chance():
    """Random codes at a high scale: their loss stands far above the logarithm of the keys."""
    contrast = alarms.Contrast()
    said = [contrast.lines(standing(contrast_nats=9.0)) for _ in range(6)]
    assert [log for log, lines in enumerate(said, 1) if any("nothing is learnt yet" in line for line in lines)] == [5]
    assert not any("warning" in line for _ in range(9) for line in alarms.Contrast().lines(standing(contrast_nats=3.79)))


# ---- signs of collapse --------------------------------------------------------------------------------------------------

# metric, its worst healthy value (those of shapes and emoji), the first value that is none any more, what is said
BOUNDS = [
    ("disc/diversity", 0.1, 0.0999, "mode collapse"),
    ("disc/saturated_percent", 60.0, 60.1, "ends of their range"),
    ("disc/d64/blindness", 0.02, 0.0199, "has won"),
    ("disc/blindness", 0.989, 0.991, "is blind"),
    ("disc/d8/blindness", 1.011, 1.0, "is blind"),
    ("model/image_spread", 0.1, 0.0999, "codes of different rows are nearly one"),
    ("gen/fake_spread", 0.1, 0.0999, "codes of different rows are nearly one"),
    ("model/std", 0.1, 0.0999, "codes of all pictures are nearly one"),
    ("model/participation", 2.0, 1.99, "in hardly two directions"),
    ("model/text_pair_distance", 0.5, 0.499, "class collapse"),
    ("gen/fake_pair_distance", 0.5, 0.499, "class collapse"),
    ("model/grad_norm/text", 1e-7, 9e-8, "no gradient arrives"),
    ("gen/grad_norm", 1e-7, 0.0, "no gradient arrives"),
]


def logged(metric, value):
    """The numbers of a log; the reals are white to a tenth."""
    return {"gen/loss": 1.0, "disc/real_saturated_percent": 10.0, "skipped": 0.0, metric: value}


@pytest.mark.parametrize("metric,well,ill,says", BOUNDS, ids=[row[0] for row in BOUNDS])
def test_a_sign_is_said_once_for_each_event(metric, well, ill, says):
    signs = alarms.Signs()
    values = [well] * 3 + [ill] * 4 + [well] + [ill] * 9 + [well] + [ill] * 5
    said = [signs.lines(logged(metric, value)) for value in values]
    assert [log for log, lines in enumerate(said, 1) if lines] == [13, 23]
    (line,) = said[12]
    assert line.startswith(f"warning: {metric} {ill:.3g} for 5 logs: ") and says in line and "; " in line


def test_what_is_not_a_number_is_no_sign():
    signs = alarms.Signs()
    assert not any(signs.lines(logged(metric, math.nan)) for metric, *_ in BOUNDS for _ in range(9))


def test_white_pictures_are_white_where_the_reals_are():
    signs = alarms.Signs()
    white = {"disc/saturated_percent": 95.0, "disc/real_saturated_percent": 90.0}
    assert not any(signs.lines(white) for _ in range(9))


def test_codes_that_are_one_point_are_told_once_not_as_a_line_too():
    signs, dead = alarms.Signs(), {"model/std": 0.01, "model/participation": 1.0}
    (line,) = [line for _ in range(9) for line in signs.lines(dead)]
    assert "model/std" in line and "predictor" in line


def test_the_console_has_a_line_with_step_figure_and_cure(capsys):
    progress = hooks.Progress("dfgan", steps=600, images=16, start=0)
    values = {"disc/diversity": 0.031, "images_per_s": 32.0, "input_wait_share": 0.0}
    assert [progress.line(step, values) for step in range(50, 500, 50)] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert said.startswith("dfgan 250/600 | warning: disc/diversity 0.031 for 5 logs: ") and "learning rate" in said
