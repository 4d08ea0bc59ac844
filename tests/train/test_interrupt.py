import contextlib
import signal

import pytest

from cupola.train.interrupt import SIGNALS, Interrupt


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_the_second_stops(number):
    with Interrupt() as interrupt:
        assert interrupt.asked is None
        signal.raise_signal(number)
        assert interrupt.asked is number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_handlers_are_what_they_were_before():
    before = [signal.getsignal(number) for number in SIGNALS]
    with contextlib.suppress(KeyError), Interrupt():
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise KeyError
    assert [signal.getsignal(number) for number in SIGNALS] == before
