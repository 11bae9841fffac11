"""The covering set leaves no pair out and is small."""

import itertools

import covering


def test_every_pair_meets_and_the_set_is_small():
    settings = {"a": [1, 2, 3, 4], "b": ["x", "y", "z"], "c": [True, False], "d": ["p", "q"]}
    allowed = lambda case: not (case["a"] == 4 and case["c"])  # noqa: E731
    cases = covering.pairs(settings, allowed)
    assert all(map(allowed, cases)) and 12 <= len(cases) <= 14
    for one, other in itertools.combinations(settings, 2):
        met = {(case[one], case[other]) for case in cases}
        assert met == {(case[one], case[other]) for case in covering.product(settings, allowed)}
