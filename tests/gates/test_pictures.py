"""Every method of pictures alone learns what is in them and its broken twin does not: the commands that users type.

A linear classifier on the encoder's features names 1,000 held-back digits. A twin is the same run with its pairs made of any
two pictures, or with what keeps its codes from collapsing taken away. The drawn encoder has taken its steps at a rate of
nothing, so that BatchNorm has its averages.
"""

import json
import subprocess
import sys

import pytest

PAIRS = {"data.partner": "same_label", "data.label_noise": 1.0}  # any two pictures
GIVEN = {"batch": 64, "last.optim.model.lr": 3e-3, "last.optim.model.warmup": 20, "last.nets.image.width": 16}
NOTHING = {"last.optim.model.lr": 1e-12}
QUEUE = {"last.args.queue": 512}
CONTRAST, ALONE = (69.0, 67.0), (66.0, 66.5)  # at least, the twin's at most, written after runs of some methods
LEAD, APART = 5, 4  # above the drawn encoder, above the twin
METHODS = {  # steps, settings, what breaks it, bounds
    "simclr": (300, {}, PAIRS, CONTRAST),
    "supcon": (300, {}, PAIRS, CONTRAST),
    "moco_v1": (300, QUEUE, PAIRS, CONTRAST),
    "moco_v2": (300, QUEUE, PAIRS, CONTRAST),
    "moco_v3": (300, {}, PAIRS, CONTRAST),
    "pcl": (300, QUEUE, PAIRS, CONTRAST),
    "byol": (900, {"last.args.momentum": 0.95}, PAIRS, ALONE),
    "simsiam": (900, {}, {"last.args.stop": False}, ALONE),
    "swav": (900, {"last.args.prototypes": 32}, PAIRS, ALONE),
    "barlow": (900, {}, PAIRS, ALONE),
    "vicreg": (900, {}, {"last.args.variance": 0.0}, ALONE),
}
SLOW = ("simclr", "moco_v2", "byol")  # the others take as long, by hand


@pytest.fixture(autouse=True, scope="module")
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "")
        patch.delenv("NPROC")  # many threads on two cores wait for each other, four times as long
        yield


def right(folder, method, data, steps, *changes):
    """Percent right after the command that a user types, at the gate's sizes."""
    keys = dict(GIVEN) | {"last.steps": steps, "evals.linear.preset": "simclr"}
    for change in changes:
        keys |= change
    words = [f"--config.{key.replace('last.', f'{method}.')}={value}" for key, value in keys.items()]
    command = [sys.executable, "-m", "supcon_jax.main", f"--config=configs/image.py:{method},{data}", f"--workdir={folder}"]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / method / "DONE").read_text())["numbers"]["linear/linear_h_top1"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Percent right of the encoder as it is drawn, which all methods on the digits share."""
    return right(tmp_path_factory.mktemp("drawn"), "simclr", "mnist5k", 100, NOTHING)


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.long) for name in METHODS]
)
def test_it_learns_digits_and_its_twin_does_not(method, drawn, tmp_path):
    steps, own, broken, (least, most) = METHODS[method]
    trained = right(tmp_path / "ours", method, "mnist5k", steps, own)
    twin = right(tmp_path / "twin", method, "mnist5k", steps, own, broken)
    print(f"{method}: drawn {drawn:.1f}, trained {trained:.1f}, twin {twin:.1f}")
    assert trained >= least and trained >= drawn + LEAD
    assert twin <= most and twin <= trained - APART
