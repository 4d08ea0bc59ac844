def test_a_table_and_a_plot(cupola, trained, tmp_path):
    plot = tmp_path / "plot.png"
    words = ["--tokens", 4, "--prompt", 6, "--width", 1, "--width", 2, "--precision", "float32", "--plot", plot]
    ended = cupola("bench", "serve", trained, *words)
    assert ended.code == 0, ended.err
    assert plot.read_bytes().startswith(b"\x89PNG")
