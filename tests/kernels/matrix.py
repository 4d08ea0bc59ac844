"""The matrix: which implementation is given which case, and when.

The quick suite gives the typical cases to XLA, to the reference and to the native kernels of the highest level that
runs here; and every fifth case of the table to the first of its operation that honours it. All else is slow: every
case, to each implementation, at every level.
"""

from functools import cache

import pytest
from cases import CASES, TYPICAL
from judge import POLICIES

from cupola.core.errors import Unsupported
from cupola.kernels.native.library import find

STACKED = [case for case in CASES if case.name == "packed, four matrices"]
QUICK = {*TYPICAL, *STACKED}
SAMPLE = set(CASES[::5]) - QUICK
LOWER = [f"cpu/{level.value}" for level in find().libraries][:-1]


def first(case, name, names):
    """Whether it is the first that honours the case: our own code, where there is any, before jax's."""
    return name == names[0]


def most(case, name, names):
    """Whether the case is typical, or of the sample and this the first that honours it."""
    return case in QUICK or (case in SAMPLE and first(case, name, names))


def pairs(cases, quick=most, without=()):
    """Returns each case with each implementation of its operation that honours it in some format.

    Args:
        quick: (case, name, names of all that are no lower level) -> whether it is in the quick suite.
        without: implementations that are left out.
    """
    return [
        pytest.param(case, each, id=f"{case}-{each.name}", marks=_marks(case, each.name, honouring, quick))
        for case in cases
        for honouring in [_honouring(case)]
        for each in honouring
        if each.name not in without
    ]


@cache
def _honouring(case):
    given = case.given()
    asked = [case.arguments(given[name], policy) for name, policy in POLICIES.items()]
    return [i for i in case.operation.implementations if not all(i.refuses(*arguments) for arguments in asked)]


def _marks(case, name, honouring, quick):
    if name in LOWER:
        # The lower levels are for the sanitizers too.
        return [pytest.mark.slow, *([pytest.mark.lower_level] if case in QUICK | SAMPLE else [])]
    names = [each.name for each in honouring if each.name not in LOWER]
    return [] if quick(case, name, names) else [pytest.mark.slow]


def honoured(case, implementation):
    """Returns the policies under which an implementation honours a case; where it honours none, the test ends here.

    What it does not honour it has to refuse when it is asked for by name, with its reasons.
    """
    reasons = {}
    for name, policy in POLICIES.items():
        args = case.arguments(case.given()[name], policy)
        reasons[name] = implementation.refuses(*args)
        if reasons[name]:
            with pytest.raises(Unsupported) as caught:
                case.operation(implementation.name, *args)
            assert all(reason in str(caught.value) for reason in reasons[name])
    if all(reasons.values()):
        pytest.skip(f"refused: {'; '.join(reasons['float32'])}")
    return tuple(name for name, why in reasons.items() if not why)
