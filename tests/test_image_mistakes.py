"""One line with exit code 2 for whatever is wrong with a config of pictures alone, and nothing of a run left behind."""

import contextlib
import dataclasses
import io
import re

import pytest

from supcon_jax import config, main, ranges
from supcon_jax.losses import bank, contrast, predictive, prototypes
from supcon_jax.methods import cmc, simclr, student
from supcon_jax.nets import backbone
from supcon_jax.views import recipes

RECORDS = "--config.data.args.records=64"

# words, settings, what the line says: told from the config alone, before jax is started
BAD = [
    ("simclr", "simclr.args.recipe=simclrr", "one of simclr, .*moco_v2"),
    ("simclr", "views.recipe=shape", "one of .*shapes"),
    ("simclr", "simclr.args.norm=foo", "one of none, .*lab, or empty"),
    ("simclr", "simclr.args.change=(('jitterr',1.0),)", "pairs as .*jitter"),
    ("simclr", "simclr.args.change=(('jitter',1.0),)", "pairs as .*jitter"),
    ("simclr", "simclr.args.change=('gray',0.5)", "pairs as .*gray"),
    ("simclr", "simclr.args.negatives=shared", "one of all, decoupled"),
    ("simclr", "simclr.args.mean=all", "anchors or examples"),
    ("simclr", "simclr.nets.image.norm=foo", "batch or layer"),
    ("supcon", "supcon.args.label_mode=all_of", "one of single, any"),
    ("moco_v2", "moco_v2.args.queue=40", "a multiple of config.moco_v2.batch=16, such as 32$"),
    ("moco_v1", "moco_v1.args.queue=8", "a multiple of config.moco_v1.batch=16, such as 16$"),
    ("moco_v2", "moco_v2.args.queue=0", "a multiple of config.moco_v2.batch=16"),
    ("pcl", "pcl.args.queue=24", "a multiple of config.pcl.batch=16"),
    ("fnc", "fnc.args.queue=24", "a multiple of config.fnc.batch=16"),
    ("swav", "swav.args.queue=24", "a multiple of config.swav.batch=16"),
    ("byol,seed", "student.args.queue=40", "a multiple of config.student.batch=16"),
    ("byol,seed", "student.args.kind=foo", "seed or compress"),
    ("pcl", "pcl.args.negatives=foo", "one of code, paper"),
    ("pirl", "pirl.args.patch=16", "at most 10, a third of config.pirl.args.size=32$"),
    ("pirl", "pirl.args.negatives=foo", "one of shared, per_anchor"),
    ("cpc", "cpc.args.ahead=9", "at most 6, less than the 7 rows of patches .*config.cpc"),
    ("cpc", "cpc.args.skip=2", "less than config.cpc.args.ahead=2"),
    ("cpc", "cpc.args.negatives=foo", "one of batch, sequence, both"),
    ("cpc", "cpc.nets.image.kind=vit", "resnet, resnet_v2 or conv"),
    ("cmc", "cmc.args.form=foo", "softmax or nce"),
    ("cmc", "cmc.args.graph=foo", "core or full"),
    ("cmc", "cmc.args.negatives=foo", "one of shared, per_anchor"),
]

# words, setting, what the line says: told once the data and the nets are there, before anything is written
MET = {
    "label mode": ("supcon", "supcon.args.label_mode=any",
                   "config.supcon.args.label_mode='any', but the records have one label each; use single"),
    "groups": ("simclr", "simclr.nets.image.groups=3",
               "config.simclr: BatchNorm: 32 rows cannot be shared by groups=3; use a divisor of 32"),
}  # fmt: skip


def refused(words, setting, workdir):
    """The one line that a run of tiny sizes ends in."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main.main(
            [f"--config=configs/image.py:{words},tiny", f"--workdir={workdir}", RECORDS, "--config.mesh.data=1",
             f"--config.{setting}"]
        )  # fmt: skip
    lines = said.getvalue().splitlines()
    assert code == 2 and len(lines) == 1 and lines[0].startswith("error: config."), said.getvalue()
    assert not workdir.exists()  # nothing was begun
    return lines[0]


@pytest.mark.parametrize("words,setting,said", BAD, ids=[row[1] for row in BAD])
def test_a_value_that_the_config_alone_shows_wrong(tmp_path, words, setting, said):
    key, _, _ = setting.partition("=")
    assert re.search(rf"^error: config\.{re.escape(key)}=.*: must be {said}", refused(words, setting, tmp_path / "w"))


@pytest.mark.parametrize("words,setting,said", MET.values(), ids=MET)
def test_values_that_meet_in_the_first_step(tmp_path, words, setting, said):
    assert re.search(f"^error: {said}", refused(words, setting, tmp_path / "w"))


def test_a_later_stage_is_told_before_the_first_one_trains(tmp_path):
    line = refused("byol,linear", "data.args.labels=multi", tmp_path / "w")
    assert "config.linear learns one label of each picture, but the records have several labels each" in line


WORDS = {
    "recipe": (ranges.RECIPES, recipes.RECIPES),
    "norm": (ranges.NORMS, (*recipes.NORMS, "lab")),
    "label_mode": (ranges.LABEL_MODES, contrast.LABEL_MODES),
    "simclr": (ranges.NEGATIVES["simclr"], simclr.NEGATIVES),
    "cpc": (ranges.NEGATIVES["cpc"], predictive.NEGATIVES),
    "pcl": (ranges.NEGATIVES["pcl"], prototypes.NEGATIVES),
    "cmc": (ranges.NEGATIVES["cmc"], bank.NEGATIVES),
    "pirl": (ranges.NEGATIVES["pirl"], bank.NEGATIVES),
    "view": (ranges.VIEW, [field.name for field in dataclasses.fields(recipes.View)]),
}


@pytest.mark.parametrize("known,those", WORDS.values(), ids=WORDS)
def test_words_are_those_of_the_modules(known, those):
    assert set(known) == set(those)


def test_words_that_stand_in_a_row_are_those_of_the_modules():
    rows = {"cmc.args.graph": cmc.GRAPHS, "student.args.kind": student.KINDS, "cmc.nets.image.kinds": backbone.KINDS}
    for key, words in rows.items():
        good, what = config.rule(key)[1:]
        assert what == " or ".join(words) and all(good(word) for word in words) and not good("foo")


def test_a_view_as_it_stands_can_be_asked_for():
    for recipe in recipes.RECIPES.values():
        for view in (*recipe.views, *recipe.small):
            assert ranges.changes(tuple(dataclasses.asdict(view).items()))
    assert not any(ranges.changes(((key, value),)) for key, value in (("gray", True), ("taps", 1.0), ("scale", (1.0,))))
