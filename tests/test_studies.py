"""Every study that ships is within its config, and one flag away from other data."""

import functools
import pathlib

import pytest

from supcon_jax import config, study
from supcon_jax.build import stage

FOLDER = pathlib.Path(study.__file__).parent.parent / "configs" / "studies"
STUDIES = sorted(path.stem for path in FOLDER.glob("*.py"))
PICTURES = [name for name in STUDIES if name.startswith("ssl_")]  # of contrast within pictures
MAP = 22  # variants of a map


@functools.cache
def shipped(name):
    """(a study as it ships, {variant: plain config} with its first seed)"""
    found = study.load(f"configs/studies/{name}.py")
    return found, {variant: study.configured(found, variant, 0, pathlib.Path("w")) for variant in found["variants"]}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*STUDIES} - {"flow", "scenes", "vocabulary", *PICTURES}))  # those are of shapes alone
@pytest.mark.parametrize("other", ["configs/cub.py", "configs/coco.py:dfgan", "configs/emoji.py:small,quick"])
def test_every_study_is_one_flag_away_from_other_data(name, other, tmp_path):
    found = study.load(f"configs/studies/{name}.py", other)
    plain = [study.configured(found, variant, 0, tmp_path) for variant in found["variants"]]
    assert len({config.digest(one) for one in plain}) == len(plain) and not found["prompts"]
    assert all(one["stages"][-1] == found["stage"] for one in plain)


@pytest.mark.slow
@pytest.mark.parametrize("name", PICTURES)
def test_every_study_of_pictures_is_one_flag_away_from_other_data(name, tmp_path):
    first = shipped(name)[0]["config"].partition(":")[2].split(",")[0]
    found = study.load(f"configs/studies/{name}.py", f"configs/image.py:{first},mnist5k,tiny,both")
    plain = [study.configured(found, variant, 0, tmp_path) for variant in found["variants"]]
    assert len({config.digest(one) for one in plain}) == len(plain)
    assert all(one["data"]["name"] == "mnist5k" for one in plain)


def test_a_variant_of_another_method_is_scored_by_its_own_last_stage(tmp_path):
    found = study.load("configs/studies/ssl_few_labels.py", "configs/image.py:simclr,shapes,tiny")
    stages = {name: study.configured(found, name, 0, tmp_path) for name in found["variants"]}
    assert list(stages["scratch_1"]["stages"]) == ["supervised"]
    assert list(stages["finetune_1"]["stages"]) == ["simclr", "finetune"]
    assert stages["linear_10"]["linear"]["data"] == {"train": "train", "label_share": 0.1, "only_labelled": True}
    assert stages["linear_10"]["data"]["label_share"] == 1  # the pretraining sees all pictures
    before = {config.digest(stage.depends(one, "simclr")) for name, one in stages.items() if "scratch" not in name}
    assert len(before) == 1  # so it is made once


def test_studies_of_one_config_can_share_a_folder():
    """A name means the same in all of them, and runs that two of them have in common are made once."""
    meaning, runs_of = {}, 0
    for name in STUDIES:
        found, plain = shipped(name)
        if found["config"] == "configs/shapes.py:quick":
            for variant, one in plain.items():
                told = config.digest(one | {"scl": 0})  # the stages have their own
                assert meaning.setdefault(variant, told) == told, f"{name}: {variant}"
                runs_of += 1
    assert len(set(meaning.values())) < 0.8 * runs_of


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_is_within_its_config(name):
    """Every variant's keys exist, no variant is another one twice, and none is more than two values from the others."""
    found, made = shipped(name)
    plain = list(made.values())
    assert found["title"] and 2 <= len(found["variants"]) <= (MAP if name in PICTURES else 11)
    assert len({config.digest(one) for one in plain}) == len(plain)
    assert all(len({*changes} - {"words"}) <= (3 if name in PICTURES else 2) for changes in found["variants"].values())
    for one in plain:
        assert found["stage"] in (list(one["stages"])[-1], "last")
        for part in one["stages"]:
            assert stage.depends(one, part)
