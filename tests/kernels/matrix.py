"""The matrix: which implementation is given which case, and when.

The quick suite gives every fifth case of the table, and the typical ones, to XLA, to the reference and to the
native kernels of the highest level that runs here. All else is slow: every case, at every level.
"""

import pytest
from cases import CASES, TYPICAL
from judge import POLICIES

from cupola.core.errors import Unsupported
from cupola.kernels.native.library import find

STACKED = [case for case in CASES if case.name == "packed, four matrices"]
QUICK = {*TYPICAL, *STACKED, *CASES[::5]}
LOWER = [f"cpu/{level.value}" for level in find().libraries][:-1]


def pairs(cases, slow=(), without=()):
    """Returns each case with each implementation of its operation that honours it in some format.

    Args:
        slow: implementations that are slow beside the rule.
        without: implementations that are left out.
    """
    return [
        pytest.param(case, implementation, id=f"{case}-{implementation.name}", marks=_marks(case, implementation, slow))
        for case in cases
        for implementation in case.operation.implementations
        if implementation.name not in without
        and not all(implementation.refuses(*case.arguments(case.given()[n], p)) for n, p in POLICIES.items())
    ]


def _marks(case, implementation, slow):
    if case in QUICK and implementation.name not in (*LOWER, *slow):
        return []
    # The lower levels are for the sanitizers too.
    lower = case in QUICK and implementation.name in LOWER
    return [pytest.mark.slow, *([pytest.mark.lower_level] if lower else [])]


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
