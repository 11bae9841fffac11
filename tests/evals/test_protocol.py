"""A protocol's line tells every field apart, and stands beside every number."""

import dataclasses
import json

import pytest

from supcon_jax.evals.protocol import Network, Protocol, numbers, record

FULL = Protocol(
    metric="fid", network="net", weights="ab" * 32, resize="299 bilinear", real_number=10, real_origin="cub/test",
    fake_number=20, fake_origin="W/attngan", captions="first", truncation=0.9, splits="10", subsets="100 x 1000",
    neighbours=3, train_number=30, train_origin="cub/train", train_content="cd" * 8, settings="lbfgs", seed=1, ema=True,
)  # fmt: skip


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Protocol)])
def test_every_field_changes_the_line(field):
    old = getattr(FULL, field)
    new = (not old) if isinstance(old, bool) else old + 1 if isinstance(old, int | float) else old[:-1] + "c"
    assert new != old and str(FULL.replace(**{field: new})) != str(FULL)
    assert field in FULL.dict() and f"{field}=" in str(FULL)


def test_the_line_is_one_line_and_fields_do_not_run_into_each_other():
    assert "\n" not in str(FULL.replace(captions="a\nb"))
    assert str(Protocol(network='a" weights="b')) != str(Protocol(network="a", weights="b"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        FULL.seed = 2


def test_record_puts_the_protocol_beside_each_number():
    out = json.loads(json.dumps(record({"fid": 1.5, "kid": 2}, FULL)))
    assert set(out) == {"fid", "kid"} and out["kid"]["value"] == 2.0
    assert out["kid"]["protocol"] == FULL.replace(metric="kid").dict()
    assert out["kid"]["line"] == str(FULL.replace(metric="kid"))
    assert Protocol(**out["fid"]["protocol"]) == FULL
    assert numbers(out) == {"fid": 1.5, "kid": 2.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="fid"):
        record({"fid": bad}, FULL)


def test_no_score_goes_without_the_name_of_its_network():
    assert Network("pt", "", 299, "", None).metric("fid") == "fid_pt"
    assert Network("effnet_lite0", "", 224, "", None).metric("is") == "is_effnet_lite0"
