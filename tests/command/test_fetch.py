from cupola.interop import fetch


def test_an_unknown_name_and_an_unread_licence_are_refused(cupola, tmp_path):
    ended = cupola("fetch", "smolm2")
    assert (ended.code, "Did you mean 'smollm2'" in ended.err) == (2, True)
    ended = cupola("fetch", "gemma3-270m", "--folder", tmp_path)
    assert (ended.code, '--accept-licence "Gemma Terms of Use"' in ended.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_and_the_licence_reach_the_download(cupola, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(fetch, "fetch", lambda name, **how: seen.update(how, name=name))
    assert cupola("fetch", "gemma3-270m", "--folder", tmp_path, "--accept-licence", "x").code == 0
    assert (seen["name"], seen["folder"], seen["accept_licence"]) == ("gemma3-270m", tmp_path, "x")
