"""A hostile template reads nothing, changes nothing and ends soon."""

import time

import pytest

from cupola.interop import sandbox
from cupola.interop.errors import TemplateError
from cupola.interop.template import ChatTemplate

ESCAPES = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ raise_exception.__globals__ }}",
    "{{ raise_exception.__code__.co_consts }}",
    "{{ strftime_now.__closure__[0] }}",
    "{{ range.__self__.open('/etc/passwd') }}",
    "{{ dict.__globals__['jinja2'] }}",
    "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ ''|attr('__class__')|attr('__mro__') }}",
    "{{ ['__class__']|map(attribute='__class__')|list|first|attr('x') }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{x.__class__}'.format_map({'x': 1}) }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{% set ns = namespace(__class__=1) %}",
    "{% set ns = namespace() %}{% set ns._x = 1 %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update(a=1) }}",
    "{{ messages[0].pop('role') }}",
    "{{ lipsum(n=9) }}",
]
BOMBS = [
    "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
    "{% for a in range(10**9) %}{% endfor %}",
    "{{ 'a' * 10**10 }}",
    "{{ 10**9 * 'a' }}",
    "{{ [0] * 10**10 }}",
    "{{ 2**99999999 }}",
    "{% set ns = namespace(x=2) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='aa') %}{% for i in range(99) %}{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x | tojson }}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ 'a' ~ ns.x }}",
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = [ns.x, 'a' * 7000000] %}{% endfor %}",
    "{% set s = 'a' * 7000000 %}{% set ns = namespace(x=[]) %}{% for i in range(999) %}{% set ns.x = [ns.x, s[1:]] %}{% endfor %}",
    "{{ ('a' * 7000000).replace('a', 'b' * 7000000) }}",
    "{{ ('a' * 7000000) | replace('a', 'b' * 7000000) }}",
    "{{ ('a' * 7000000) | replace(old='a', new='b' * 7000000) }}",
    "{{ ('b' * 7000000).join(['a'] * 7000) }}",
    "{{ (['a'] * 7000) | join('b' * 7000000) }}",
    "{{ (['a'] * 7000) | join(d='b' * 7000000) }}",
    "{{ ('\n' * 7000000) | indent(9999) }}",
    "{{ [1] | tojson(indent=9999) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ ('\t' * 9).expandtabs(9999) }}",
    "{{ 'a'.encode().zfill(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ 'a' | center(10**9) }}",
    "{% for i in range(99999) %}{{ 'a' * 7000000 }}{% endfor %}",
]
MESSAGES = [{"role": "user", "content": "secret"}]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(sandbox, "SECONDS", 0.5)


@pytest.mark.parametrize("source", ESCAPES)
def test_nothing_is_reached(source):
    try:
        text = ChatTemplate(source).render(MESSAGES)
    except TemplateError:
        return
    assert text.strip() == ""


@pytest.mark.parametrize("source", BOMBS)
def test_every_bomb_goes_out(source):
    start = time.process_time()
    with pytest.raises(TemplateError, match="makes|runs|asks for|indents|not offered|broken|fails"):
        ChatTemplate(source).render(MESSAGES)
    # The bound itself, and what the largest single step may take.
    assert time.process_time() - start < sandbox.SECONDS + 2


def test_the_clock_and_the_counts_stop_only_what_is_too_much():
    assert ChatTemplate("{% for a in range(300) %}{{ a }}{% endfor %}").render([]).startswith("0123")
    assert len(ChatTemplate("{{ 'a' * 7000000 }}").render([])) == 7_000_000


def test_a_template_of_megabytes_is_not_read():
    with pytest.raises(TemplateError, match="2000000 characters"):
        ChatTemplate(" " * 2_000_000)
