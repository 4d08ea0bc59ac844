"""The lab's own schema: what its validation file claims, and that the claims notice when it changes."""

import pytest

from cupola.access.validate.report import Kind
from cupola.access.validate.run import validate
from cupola.recipes.guard import SCHEMA

FILE = SCHEMA.with_name("access.validation.yaml")


def test_what_the_lab_claims_holds():
    report = validate(FILE)
    assert not report.failures, "\n".join(map(str, report.failures))
    assert report.counts[Kind.ASSERTION].held >= 40
    assert report.counts[Kind.EXPECTED].held >= 5


@pytest.mark.parametrize(
    ("rule", "weaker"),
    [
        ("(reader + manage) & dataset.all(read)", "(reader + manage) & dataset.any(read)"),
        (" & base.all(use)", ""),
        (" & base.all(use)", " & base.any(use)"),
        ("read = watch & dataset.all(read)", "read = watch"),
        ("read = (reader + manage) - barred", "read = reader + manage"),
    ],
)
def test_a_weaker_rule_is_noticed(rule, weaker, tmp_path):
    text = SCHEMA.read_text()
    weak = text.replace(rule, weaker)
    assert weak != text
    (tmp_path / SCHEMA.name).write_text(weak)
    (tmp_path / FILE.name).write_text(FILE.read_text())
    assert validate(tmp_path / FILE.name).failures
