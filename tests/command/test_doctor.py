def test_it_tells_what_there_is_and_what_it_means(cupola, measured):
    ended = cupola("doctor")
    assert ended.code == 0
    for what, value in measured.describe():
        assert what in ended.out
        assert value in ended.out
    assert "models train here with bfloat16 products, layers unrolled" in ended.out
