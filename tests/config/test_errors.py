import pickle

from cupola.config.errors import ConfigError, GoldenMismatch


def test_a_message_says_where_what_and_what_to_type():
    error = ConfigError("width is 0", where="stack", remedy="Use 1 or more.").under("model")
    assert str(error) == "model.stack: width is 0\nUse 1 or more."
    assert str(ConfigError("width is 0")) == "width is 0"
    assert str(ConfigError("width is 0").under("model")) == "model: width is 0"


def test_an_error_keeps_its_kind_and_parts_through_pickle():
    error = pickle.loads(pickle.dumps(GoldenMismatch("other", where="a.txt", remedy="Write it.")))
    assert type(error) is GoldenMismatch
    assert (error.problem, error.where, error.remedy) == ("other", "a.txt", "Write it.")
