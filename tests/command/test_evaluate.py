import json
import re


def bits(out):
    return {name: float(number) for name, number in re.findall(r"(model|gzip|xz)\W+([\d.]+)", out)}


def test_the_scores_are_those_of_the_summary(cupola, trained):
    ended = cupola("eval", trained)
    summary = json.loads((trained / "summary.json").read_text())
    assert ended.code == 0
    assert f"{trained} at step 12" in ended.out
    assert bits(ended.out) == {
        "model": round(summary["bits_per_byte"], 4),
        "gzip": round(summary["gzip_bits_per_byte"], 4),
        "xz": round(summary["xz_bits_per_byte"], 4),
    }


def test_another_text_or_step_gives_another_score(cupola, trained, tmp_path):
    text = tmp_path / "other.txt"
    text.write_text("quite another text, about a zebra. " * 3)
    one = bits(cupola("eval", trained).out)
    other, older = bits(cupola("eval", trained, "--text", text).out), bits(cupola("eval", trained, "--step", 8).out)
    assert other["model"] > one["model"]
    assert other["gzip"] != one["gzip"]
    assert older["model"] != one["model"]
    assert older["gzip"] == one["gzip"]


def test_a_text_that_is_missing_is_refused(cupola, trained):
    ended = cupola("eval", trained, "--text", "missing.txt")
    assert ended.code == 2
    assert "there is no such file or folder" in ended.err
