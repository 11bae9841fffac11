"""Every study that ships is within its config, and one flag away from other data."""

import pathlib

import pytest

from supcon_jax import config, study
from supcon_jax.build import stage

STUDIES = sorted(path.stem for path in (pathlib.Path(study.__file__).parent.parent / "configs" / "studies").glob("*.py"))


@pytest.mark.parametrize("name", sorted({*STUDIES} - {"scenes", "vocabulary"}))  # those are of shapes alone
@pytest.mark.parametrize("other", ["configs/cub.py", "configs/coco.py:dfgan", "configs/emoji.py:small,quick"])
def test_every_study_is_one_flag_away_from_other_data(name, other, tmp_path):
    found = study.load(f"configs/studies/{name}.py", other)
    plain = [study.configured(found, variant, 0, tmp_path) for variant in found["variants"]]
    assert len({config.digest(one) for one in plain}) == len(plain) and not found["prompts"]
    assert all(one["stages"][-1] == found["stage"] for one in plain)


def test_studies_of_one_config_can_share_a_folder(tmp_path):
    """A name means the same in all of them, and runs that two of them have in common are made once."""
    meaning, runs_of = {}, 0
    for name in STUDIES:
        found = study.load(f"configs/studies/{name}.py")
        if found["config"] == "configs/shapes.py:quick":
            for variant in found["variants"]:
                told = config.digest(study.configured(found, variant, 0, tmp_path) | {"scl": 0})  # the stages have their own
                assert meaning.setdefault(variant, told) == told, f"{name}: {variant}"
                runs_of += 1
    assert len(set(meaning.values())) < 0.8 * runs_of


@pytest.mark.parametrize("name", STUDIES)
def test_every_shipped_study_is_within_its_config(name, tmp_path):
    """Every variant's keys exist, no variant is another one twice, and none is more than two values from the others."""
    found = study.load(f"configs/studies/{name}.py")
    assert found["title"] and 2 <= len(found["variants"]) <= 11
    plain = [study.configured(found, variant, 0, tmp_path) for variant in found["variants"]]
    assert len({config.digest(one) for one in plain}) == len(plain)
    assert all(len(changes) <= 2 for changes in found["variants"].values())
    for one in plain:
        assert list(one["stages"])[-1] == found["stage"]
        for part in one["stages"]:
            assert stage.depends(one, part)
