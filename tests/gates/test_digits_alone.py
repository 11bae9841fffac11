"""Without other pictures, or with prototypes or a bank, 900 small steps on 4,000 digits: features tell digits apart, a twin's
less.

Bounds were written after one run of some at seed 0 (69 to 79 percent, twins about 63); drawn encoders have 51. The twins of
SimSiam and VICReg then stood at 66.6 and 68.6, above MOST: these two fail, by hand, until their runs are better than that.
PIRL, 66.1 against 64.4, is not among them.
"""

import pytest

from gates import pictures

STEPS, SIZES = 900, {"own.nets.image.width": 16}
LEAST, MOST = 66.0, 66.5  # percent right of the held-back digits, of the method and of its twin
METHODS = {
    "byol": {"own.args.momentum": 0.95}, "simsiam": {}, "swav": {"own.args.prototypes": 32}, "barlow": {}, "vicreg": {},
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def optimised():
    yield from pictures.optimised()


SLOW = ("byol", "swav")  # the others take as long, by hand


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else pytest.mark.long) for name in METHODS]
)
def test_it_learns_digits_and_its_twin_does_not(method):
    pictures.judge(method, STEPS, {**SIZES, **METHODS[method]}, least=LEAST, most=MOST, lead=12)
