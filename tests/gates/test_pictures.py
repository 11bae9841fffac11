"""Every method of pictures alone learns what is in them and its broken twin does not: the commands that users type.

A linear classifier on the encoder's features names 1,000 held-back digits. A twin is the same run with its pairs made of any
two pictures, or with what keeps its codes from collapsing taken away. The drawn encoder takes a step at a rate of nothing, or
a hundred, which give BatchNorm its averages.
"""

import json
import pathlib

import pytest

from gates import command
from supcon_jax.data.fetch import home

PAIRS = {"data.partner": "same_label", "data.label_noise": 1.0}  # any two pictures
GIVEN = {"batch": 64, "last.optim.model.lr": 3e-3, "last.optim.model.warmup": 20, "last.nets.image.width": 16}
NOTHING = {"last.optim.model.lr": 1e-12}
QUEUE = {"last.args.queue": 512}
# at least, a twin's at most, above the encoder as it is drawn: written after runs of some methods, which had 74 to 88 percent
# (69 to 79 with 900 steps), their twins 61 to 63
CONTRAST, ALONE = (69.0, 67.0, 15), (66.0, 66.5, 12)
LEAD, APART = 5, 4  # above the drawn encoder with its averages, above the twin
METHODS = {  # steps, settings, what breaks it, bounds
    "simclr": (300, {}, (PAIRS,), CONTRAST),
    "fnc": (300, {}, (PAIRS | {"last.args.support": 0},), CONTRAST),  # every second view is of another picture: two, no more
    "supcon": (300, {}, (PAIRS,), CONTRAST),
    "moco_v1": (300, QUEUE, (PAIRS,), CONTRAST),
    "moco_v2": (300, QUEUE, (PAIRS,), CONTRAST),
    "moco_v3": (300, {}, (PAIRS,), CONTRAST),
    "pcl": (300, QUEUE, (PAIRS,), CONTRAST),
    "byol": (900, {"last.args.momentum": 0.95}, (PAIRS,), ALONE),
    "simsiam": (900, {}, (PAIRS, {"last.args.stop": False}), ALONE),
    "swav": (900, {"last.args.prototypes": 32}, (PAIRS,), ALONE),
    "barlow": (900, {}, (PAIRS,), ALONE),
    "vicreg": (900, {}, ({"last.args.variance": 0.0},), ALONE),  # with any pairs its other terms keep what a picture has: 71
}
SLOW = ("simclr",)  # the others take as long, by hand
TEACHER = {"simclr.optim.model.lr": 3e-3, "simclr.optim.model.warmup": 20, "simclr.nets.image.width": 16}
PUPIL = {"student.optim.model.lr": 3e-3, "student.optim.model.warmup": 20, "student.nets.image.width": 8,
         "student.args.queue": 512, "student.steps": 300}  # fmt: skip


def right(folder, method, steps, *changes, data="mnist5k"):
    """Percent right after the command that a user types, at the gate's sizes."""
    keys = dict(GIVEN) | {"last.steps": steps, "evals.linear.preset": "simclr"}
    for change in changes:
        keys |= change
    words = [f"--config.{key.replace('last.', f'{method}.')}={value}" for key, value in keys.items()]
    return command.run(folder, f"configs/image.py:{method},{data}", method, *words)["linear/linear_h_top1"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Percent right of the encoder that is drawn, which all methods share: as it is, and with its averages."""
    return [right(tmp_path_factory.mktemp("drawn"), "simclr", steps, NOTHING) for steps in (1, 100)]


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.long) for name in METHODS]
)
def test_it_learns_digits_and_its_twins_do_not(method, drawn, tmp_path):
    steps, own, broken, (least, most, lead) = METHODS[method]
    trained = right(tmp_path / "ours", method, steps, own)
    twins = [right(tmp_path / f"twin{i}", method, steps, own, change) for i, change in enumerate(broken)]
    print(f"{method}: drawn {drawn}, trained {trained:.1f}, twins {twins}")
    assert trained >= least and trained >= drawn[0] + lead and trained >= drawn[1] + LEAD
    for twin in twins:
        assert twin <= most and twin <= trained - APART


@pytest.mark.long
def test_predicting_patches_learns_digits_and_its_twin_does_not(tmp_path):
    """CPC on patches of 8 px, 4 apart; layer norms have no averages. Its twin predicts the lower half of another picture.

    Bounds after runs of 300 steps, which had 46.0 percent, the twin 39.1, the drawn encoder 35.5.
    """
    drawn, trained, twin = (
        right(tmp_path / name, "cpc", steps, change)
        for name, steps, change in (("drawn", 1, NOTHING), ("ours", 900, {}), ("twin", 900, PAIRS))
    )
    print(f"cpc: drawn {drawn:.1f}, trained {trained:.1f}, twin {twin:.1f}")
    assert trained >= 44 and trained >= drawn + 8 and trained >= twin + APART


@pytest.mark.long
def test_shuffled_patches_and_their_picture_learn_digits(drawn, tmp_path):
    """PIRL, 43 passes over the bank. Its loss of the picture alone finds a digit whatever the patches are of, so that what its
    patches teach is told with that part left out (lam 1), and by a twin that is shown the patches of any picture.

    Written before the twin's run and that of the patches alone: 78, 8 over the twin; LEAD and APART are those of all gates.
    """
    patches = {"last.args.lam": 1.0}
    trained, alone, twin = (
        right(tmp_path / name, "pirl", 2700, change)
        for name, change in (("ours", {}), ("patches", patches), ("twin", patches | PAIRS))
    )
    print(f"pirl: drawn {drawn}, trained {trained:.1f}, patches alone {alone:.1f}, their twin {twin:.1f}")
    assert trained >= 78 and trained >= twin + 8
    assert alone >= drawn[1] + LEAD and alone >= twin + APART


@pytest.mark.long
def test_lightness_and_colours_find_each_other_and_learn_groups_of_emoji(tmp_path):
    """CMC on real pictures that have colours, 32 channels, crops of at least 0.6 of a picture; 579 pictures of ten groups.

    Bounds after runs of seed 0 (drawn 63.2, trained 66.5, twin 45.8) and before those of seed 1, which are asked here: a drawn
    encoder reads colours well, so that little is left to learn, and its twin unlearns them.
    """
    if not (pathlib.Path(home()) / "emoji").exists():
        pytest.skip("python -m supcon_jax.data.fetch emoji")
    emoji = {"data.args.uses": 10, "data.args.test": 30, "last.nets.image.width": 32}
    emoji |= {"last.args.change": '(("scale",(0.6,1.0)),)', "seed": 1}
    drawn, trained, twin = (
        right(tmp_path / name, "cmc", steps, emoji, change, data="emoji")
        for name, steps, change in (("drawn", 100, NOTHING), ("ours", 1500, {}), ("twin", 1500, PAIRS))
    )
    print(f"cmc: drawn {drawn:.1f}, trained {trained:.1f}, twin {twin:.1f}")
    assert trained >= drawn + 2 and twin <= drawn - 8


def stages(folder, words, last, more):
    """The last numbers of SimCLR and what follows it, as a user types them, at the gate's sizes."""
    keys = {"batch": 64, "simclr.steps": 300, "evals.linear.preset": "simclr", **TEACHER, **more}
    return command.run(folder, f"configs/image.py:mnist5k,{words}", last, *(f"--config.{k}={v}" for k, v in keys.items()))


@pytest.mark.long
def test_small_students_learn_what_their_teacher_has_learned(tmp_path):
    """SEED and CompRess, half as wide as the SimCLR encoder that teaches them; their twins' teacher is the encoder as it is
    drawn, and so is a student that takes a hundred steps of nothing.

    Bounds after the first runs of seed 0, which had 77.4 and 74.6 percent, the twins 59.2 and 56.3, the drawn student 54.2.
    """

    def learned(name, word, steps, more):
        numbers = stages(tmp_path / name, word, "student", {"simclr.steps": steps, **PUPIL, **more})
        return numbers["linear/linear_h_top1"]

    unlearned = {"simclr.optim.model.lr": 1e-12}
    drawn = learned("drawn", "seed", 1, unlearned | {"student.optim.model.lr": 1e-12, "student.steps": 100})
    for word in ("seed", "compress"):
        trained, twin = learned(f"{word}_ours", word, 300, {}), learned(f"{word}_twin", word, 1, unlearned)
        print(f"{word}: drawn {drawn:.1f}, trained {trained:.1f}, twin {twin:.1f}")
        assert trained >= 70 and trained >= drawn + 12 and trained >= twin + 10


@pytest.mark.long
def test_classifiers_and_a_student_of_their_answers_know_digits(tmp_path):
    """After SimCLR: a classifier on fixed features, one with all fine-tuned, and a student of its answers, half as wide and
    never told a label. The twin's labels are wrong, each of them.

    Bounds after the first runs of seed 0: 66.6, 87.7 and 79.3 percent right, the twin's student 6.9.
    """
    more = {"linear.steps": 300, "finetune.steps": 300, "distil.steps": 300, "distil.optim.model.warmup": 20}

    def named(name, words, last, **wrong):
        own = {key: value for key, value in more.items() if key.split(".")[0] in words}
        return stages(tmp_path / name, words, last, own | wrong)["labels/label_accuracy"]

    linear = named("linear", "linear", "linear")
    student = named("ours", "finetune,distil", "distil")
    tuned = json.loads((tmp_path / "ours" / "finetune" / "DONE").read_text())["numbers"]["labels/label_accuracy"]
    twin = named("twin", "finetune,distil", "distil", **{"data.label_noise": 1.0})
    print(f"linear {linear:.1f}, fine-tuned {tuned:.1f}, its student {student:.1f}, the twin's {twin:.1f}")
    assert linear >= 58 and tuned >= 80 and student >= 70 and twin <= 15
