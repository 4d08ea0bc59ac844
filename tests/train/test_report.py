import json

import pytest
from matplotlib.image import imread

REQUIRED = {
    "bits_per_byte", "gzip_bits_per_byte", "xz_bits_per_byte", "parameters", "tokens_per_second", "seconds"
}  # fmt: skip


def test_the_summary_holds_what_others_read(finished, experiment):
    folder, summary, _ = finished
    assert summary.keys() >= REQUIRED
    assert json.loads(folder.summary.read_text()) == summary
    assert summary["parameters"] == experiment().model.count()
    assert summary["steps"] == 6
    assert summary["skipped_steps"] == 0
    assert summary["tokens_per_second"] == pytest.approx(summary["tokens"] / summary["seconds"])
    assert 0 < summary["matmul_share"] < 1
    assert summary["corpus"]["documents"] < 40


def test_the_card_has_the_numbers_of_the_summary(finished):
    folder, summary, _ = finished
    card = folder.card.read_text()
    for name in ("bits_per_byte", "gzip_bits_per_byte", "xz_bits_per_byte", "held_out_loss"):
        assert f"| {summary[name]:.3f} |" in card
    for number in (summary["parameters"], summary["tokens"], summary["corpus"]["bytes"]):
        assert f"{number:,}" in card
    assert f"{summary['seconds']:.0f} s, 6 steps" in card
    assert f"cupola complete {folder.path}" in card
    assert all(f"    {line}" in card for line in folder.config.read_text().splitlines())


def test_the_curve_is_a_picture(finished):
    folder, _, _ = finished
    assert folder.curve.read_bytes().startswith(b"\x89PNG\r\n")
    height, width = imread(folder.curve).shape[:2]
    assert (width, height) == (1000, 600)
