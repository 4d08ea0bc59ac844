from cupola.config.suggest import did_you_mean


def test_the_nearest_name_is_offered_in_any_case():
    assert did_you_mean("silu", ["SILU", "GELU", "RELU"]).startswith("Did you mean 'SILU'")
    assert did_you_mean("widht", ["width", "heads"]) == "Did you mean 'width'?"


def test_without_a_near_name_all_are_listed():
    assert did_you_mean("zzz", ["b", "a"]) == "Known here: a, b."
    assert did_you_mean("zzz", []) == "Nothing is known here."
