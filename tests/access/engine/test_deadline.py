import math
import time

import pytest

from cupola.access.engine.deadline import Deadline
from cupola.access.errors import Late


def test_it_says_what_was_asked_and_what_to_do():
    Deadline(60).check("a question")
    Deadline(math.inf).check("a question")
    with pytest.raises(Late, match="a question: the answer takes too long\nAsk for less"):
        Deadline(-1).check("a question")


def test_who_reads_slowly_loses_no_time():
    deadline = Deadline(0.1)

    def entries():
        for entry in range(3):
            deadline.check("entries")
            yield entry

    found = deadline.resting(entries())
    time.sleep(0.2)
    read = []
    for entry in found:
        read.append(entry)
        time.sleep(0.2)
    assert read == [0, 1, 2]


def test_what_takes_its_time_to_be_found_ends_late():
    deadline = Deadline(0.05)

    def entries():
        while True:
            time.sleep(0.02)
            deadline.check("entries")
            yield 1

    with pytest.raises(Late):
        list(deadline.resting(entries()))
