from cupola.config import text
from cupola.recipes.quickstart import quickstart


def test_show_prints_text_that_rebuilds_the_experiment(cupola, tmp_path):
    shown = cupola("config", "show", "quickstart")
    assert (shown.code, text.parse(shown.out)) == (0, quickstart())
    assert shown.out.endswith("\n")
    (tmp_path / "kept.txt").write_text(shown.out)
    assert cupola("config", "show", tmp_path / "kept.txt").out == shown.out


def test_show_takes_changes(cupola):
    shown = text.parse(cupola("config", "show", "quickstart", "model.width=384", "name=wide").out)
    assert shown == quickstart().replace("model.width", 384).replace("name", "wide")


def test_show_of_a_run(cupola, trained, experiment):
    assert text.parse(cupola("config", "show", trained).out) == experiment()


def test_diff_prints_what_differs_and_says_so_by_its_exit_code(cupola, config):
    same = cupola("config", "diff", config(), config())
    assert (same.code, same.out) == (0, "no difference\n")
    one = cupola("config", "show", config(), "seed=7").out
    other = config().with_name("other.txt")
    other.write_text(one)
    assert cupola("config", "diff", config(), other).out == "~ seed: 0 -> 7\n"
    assert cupola("config", "diff", config(), other).code == 1
