import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest
from gguf import GGMLQuantizationType as Kind
from ggufs import real, write_gguf
from tiny import CONFIGS, model_of, params_of

from cupola.core.dtype import FLOAT32
from cupola.core.errors import TokenizerError
from cupola.data.tokenizer import Tokenizer
from cupola.interop import fetch
from cupola.interop.errors import UnknownModel, WeightsError
from cupola.interop.huggingface import export
from cupola.interop.open import Weights, open_model

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "models_folder", lambda: tmp_path / "models")


@pytest.fixture
def folder(tmp_path):
    model = model_of(CONFIGS["llama"] | {"vocab_size": 300})
    tokenizer = Tokenizer.train(["iron and steel"] * 9, vocabulary=260)
    export(model, params_of(model), tmp_path / "tiny-llama", tokenizer=tokenizer)
    return tmp_path / "tiny-llama"


def test_a_folder_is_opened_with_all_that_belongs_to_it(folder):
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "README.md").write_text("---\nlibrary: x\nlicense: mit\n---\n# Tiny\n")
    (folder / "generation_config.json").write_text(
        json.dumps({"temperature": 1, "top_p": 0.9, "top_k": 20, "eos_token_id": [3, 4]})
    )
    opened = open_model(folder, precision=FLOAT32)
    assert (opened.name, opened.licence, opened.template.source) == ("tiny-llama", "mit", TEMPLATE)
    assert (opened.temperature, opened.top_p, opened.top_k) == (1.0, 0.9, 20)
    assert opened.stop_tokens == {3, 4, opened.tokenizer.end}
    assert opened.model.vocabulary == 300 > opened.tokenizer.vocabulary
    assert opened.model(opened.params, jnp.asarray([[1, 2]])).states.shape == (1, 2, 16)


def test_what_makers_recommend_is_taken_only_where_it_can_be_done(folder):
    (folder / "generation_config.json").write_text(json.dumps({"temperature": -1, "top_p": 2, "top_k": 0}))
    opened = open_model(str(folder), precision=FLOAT32)
    assert (opened.temperature, opened.top_p, opened.top_k, opened.licence, opened.template) == (None,) * 5


def test_a_folder_has_no_stored_weights(folder):
    with pytest.raises(WeightsError, match=r"no quantized weights[\s\S]*\.gguf"):
        open_model(folder, weights=Weights.STORED, precision=FLOAT32)


def test_a_model_that_knows_fewer_tokens_is_refused(folder):
    Tokenizer.train(["iron and steel and other things"] * 9, vocabulary=290).save(folder / "tokenizer.json")
    config = json.loads((folder / "config.json").read_text())
    wide = open_model(folder, precision=FLOAT32)
    small = model_of(config | {"vocab_size": 31})
    for file in folder.iterdir():
        if file.name != "tokenizer.json":
            file.unlink()
    export(small, params_of(small), folder.parent / "small")
    wide.tokenizer.save(folder.parent / "small" / "tokenizer.json")
    with pytest.raises(TokenizerError, match="but the model has 31"):
        open_model(folder.parent / "small", precision=FLOAT32)


@pytest.mark.parametrize("weights", Weights)
def test_a_gguf_file_is_opened(tmp_path, weights):
    opened = open_model(write_gguf(tmp_path / "tiny.gguf", kind=Kind.Q8_0), weights=weights, precision=FLOAT32)
    assert (opened.name, opened.licence, opened.stop_tokens) == ("tiny", "mit", {0, 2})
    ids = opened.template.encode(opened.tokenizer, [{"role": "user", "content": "hi"}])
    hidden = opened.model(opened.params, jnp.asarray([ids])).states
    assert jnp.isfinite(opened.model.logits(opened.params, hidden)).all()


def test_a_fetched_name_is_opened(tmp_path, monkeypatch):
    file = write_gguf(tmp_path / "tiny.gguf")
    named = dataclasses.replace(fetch.MODELS["smollm2"], file="t.gguf", size_bytes=file.stat().st_size, licence="L")
    monkeypatch.setitem(fetch.MODELS, "tiny", named)
    with pytest.raises(UnknownModel, match=r"not fetched yet[\s\S]*cupola fetch tiny"):
        open_model("tiny", precision=FLOAT32)
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    file.rename(tmp_path / "models" / "tiny" / "t.gguf")
    opened = open_model("tiny", precision=FLOAT32)
    assert (opened.name, opened.licence) == ("tiny", "L")


def test_what_is_not_there_is_answered_with_what_is(tmp_path):
    with pytest.raises(UnknownModel, match=r"no model, folder or file 'nothing'[\s\S]*Fetched: none\. .*smollm2"):
        open_model("nothing", precision=FLOAT32)
    (tmp_path / "model.gguf").write_bytes(b"")
    with pytest.raises(UnknownModel, match=r"Did you mean 'model\.gguf'"):
        open_model(tmp_path / "modell.gguf", precision=FLOAT32)
    with pytest.raises(UnknownModel, match=r"no config\.json[\s\S]*Name the file: .*model\.gguf"):
        open_model(tmp_path, precision=FLOAT32)
    (tmp_path / "model.gguf").rename(tmp_path / "notes.txt")
    with pytest.raises(UnknownModel, match=r"It holds notes\.txt\."):
        open_model(tmp_path, precision=FLOAT32)
    with pytest.raises(WeightsError, match="is empty"):
        open_model(tmp_path / "notes.txt", precision=FLOAT32)


@pytest.fixture
def smollm2(monkeypatch):
    monkeypatch.undo()
    return real("smollm2")


@pytest.mark.slow
@pytest.mark.parametrize("weights", Weights)
def test_the_real_smollm2_knows_the_capital_of_france(smollm2, weights):
    opened = open_model(smollm2, weights=weights, precision=FLOAT32)
    prompt = opened.template.encode(opened.tokenizer, [{"role": "user", "content": "What is the capital of France?"}])
    forward = jax.jit(lambda p, tokens: opened.model.logits(p, opened.model(p, tokens).states))
    tokens = list(prompt)
    while tokens[-1] not in opened.stop_tokens or len(tokens) == len(prompt):
        padded = jnp.asarray([tokens + [0] * (64 - len(tokens))])
        tokens.append(int(forward(opened.params, padded)[0, len(tokens) - 1].argmax()))
    assert opened.tokenizer.decode(tokens[len(prompt) :]) == "The capital of France is Paris."
