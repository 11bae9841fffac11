"""Every method of pictures alone learns what is in them and its broken twin does not: the commands that users type.

A linear classifier on the encoder's features names 1,000 held-back digits, or held-back emoji by their group. A twin is the
same run with two settings changed: its pairs are of any two pictures, or what keeps codes from collapsing is taken away.
The drawn encoder has taken its steps at a rate of nothing, so that BatchNorm has its averages.
"""

import json
import subprocess
import sys

import pytest

PAIRS = {"data.partner": "same_label", "data.label_noise": 1.0}  # any two pictures
SMALL = {"last.optim.model.lr": 3e-3, "last.optim.model.warmup": 20, "last.nets.image.width": 16}
NOTHING = {"last.optim.model.lr": 1e-12, "last.steps": 100}
QUEUE = {"last.args.queue": 512}
# steps, settings, what breaks it; bounds: at least, the twin's at most, above the drawn encoder: percent right
CONTRAST, ALONE = (69.0, 67.0, 15), (66.0, 66.5, 12)
METHODS = {
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
SLOW = ("simclr", "moco_v2", "byol", "swav")  # the others take as long, by hand


@pytest.fixture(autouse=True, scope="module")
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLA_FLAGS", "")
        yield


def right(folder, method, data, steps, *changes):
    """The command that a user types, at the gate's sizes; percent right in the end."""
    keys = {"batch": 64, "last.steps": steps, **SMALL}
    for change in changes:
        keys |= change
    words = [f"--config.{key.replace('last.', f'{method}.')}={value}" for key, value in keys.items()]
    command = [sys.executable, "-m", "supcon_jax.main", f"--config=configs/image.py:{method},{data}", f"--workdir={folder}"]
    done = subprocess.run([*command, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / method / "DONE").read_text())["numbers"]["linear/linear_h_top1"]


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.long) for name in METHODS]
)
def test_it_learns_what_is_in_pictures_and_its_twin_does_not(method, tmp_path):
    data, steps, own, broken, (least, most, lead) = METHODS[method]
    trained = right(tmp_path / "ours", method, data, steps, own)
    twin = right(tmp_path / "twin", method, data, steps, own, broken)
    drawn = right(tmp_path / "drawn", method, data, 100, own, NOTHING)
    print(f"{method}: drawn {drawn:.1f}, trained {trained:.1f}, twin {twin:.1f}")
    assert trained >= least and trained >= drawn + lead
    assert twin <= most and twin <= trained - 4
