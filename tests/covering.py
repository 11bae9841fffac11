"""A small set of cases in which every two settings meet, for tests whose full product is too long."""

import itertools


def pairs(settings, allowed=lambda case: True):
    """Cases, dicts of one value for each name, such that any two values of two names that may meet do so in one of them.

    settings: mapping of names to lists of values. allowed: says which cases make sense. Greedy: each case in turn is
    the one of the full product that brings most pairs together that have not met. Always the same cases.
    """
    full = product(settings, allowed)
    meets = [set(itertools.combinations(sorted(case.items(), key=lambda item: item[0]), 2)) for case in full]
    missing = set().union(*meets)
    chosen = []
    while missing:
        best = max(range(len(full)), key=lambda i: len(meets[i] & missing))
        chosen.append(full[best])
        missing -= meets[best]
    return chosen


def product(settings, allowed=lambda case: True):
    """All cases that make sense."""
    cases = (dict(zip(settings, values, strict=True)) for values in itertools.product(*settings.values()))
    return [case for case in cases if allowed(case)]


def name(case):
    """One word for a case, as a test's id."""
    return "-".join(str(value) for value in case.values())
