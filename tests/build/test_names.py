"""Names and arguments of a config: what they stand for, and one line for each that is wrong."""

import re

import jax.numpy as jnp
import pytest

from supcon_jax.build import names
from supcon_jax.config import UserError
from supcon_jax.data import DATA
from supcon_jax.gans import GANS
from supcon_jax.methods import METHODS

TABLES = {"nets": names.NETS, "data": DATA, "methods": METHODS, "gans": GANS}


def trainer(nets, tx, *, rate, decay=0.5):
    return nets, tx, rate, decay


def refused(function, *args, **options):
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("table,name", [(table, name) for table, held in TABLES.items() for name in held])
def test_every_name_stands_for_something_that_can_be_called(table, name):
    assert callable(names.resolve(TABLES[table], name, table))


def test_an_unknown_name_is_answered_with_all_that_are_known():
    line = refused(names.resolve, {"b": "m:b", "a": "m:a"}, "c", "config.x.net")
    assert line == "config.x.net 'c' is not known; use one of: a, b"


def test_an_unknown_argument_is_answered_with_those_of_the_config():
    line = refused(names.call, trainer, "damsm.args", 1, 2, rate=1, dacey=3)
    assert line == "config.damsm.args.dacey is not an argument of trainer; it takes: rate, decay"
    assert names.call(trainer, "damsm.args", 1, 2, rate=3) == (1, 2, 3, 0.5)


def test_an_argument_without_a_default_must_be_given():
    assert refused(names.call, trainer, "damsm.args", 1, 2, decay=1).startswith("config.damsm.args lacks rate,")
    assert "config.nets.image lacks heads," in refused(names.net, {"net": "attributes", "width": 4}, "nets.image")


def test_a_nets_fields_are_its_arguments_but_not_those_of_flax():
    line = refused(names.net, {"net": "attributes", "heads": {"shape": 8}, "breadth": 4}, "nets.image")
    assert re.fullmatch(r"config\.nets\.image\.breadth is not an argument of AttributeNet; it takes: heads, width, dtype", line)
    assert "is not an argument" in refused(names.net, {"net": "attributes", "heads": {"shape": 8}, "parent": 4}, "nets.image")
    assert "config.nets.image.net None is not known" in refused(names.net, {"heads": {}}, "nets.image")


def test_nets_take_lists_precision_and_what_the_build_knows():
    made = names.net({"net": "attngan_g", "sizes": [8, 16]}, "nets.gen", "bf16")
    assert made.sizes == (8, 16) and made.dtype == jnp.bfloat16 and hash(made)
    assert names.net({"net": "rnn"}, "nets.text", vocab=7).vocab == 7
    assert names.net({"net": "rnn"}, "nets.text", vocab=7).dtype is None


def test_lists_become_tuples_all_the_way_down():
    assert names.frozen([["shape", 8], [[1]], "ab"]) == (("shape", 8), ((1,),), "ab")
    assert names.frozen("ab") == "ab" and names.frozen(0.5) == 0.5
