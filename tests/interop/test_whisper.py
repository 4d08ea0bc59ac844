import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from converted import at_ctranslate2, at_huggingface, packed
from safetensors.numpy import save_file

from cupola.core.errors import ConfigError, TokenizerError
from cupola.data.audio.clip import Clip
from cupola.interop import fetch
from cupola.interop.errors import UnknownModel, WeightsError
from cupola.interop.open import open_model
from cupola.interop.whisper import open_whisper
from cupola.layers.repeat import unstacked
from cupola.models.speech.listening import Listening
from cupola.models.speech.search import Choice, Plan, Prompts, compiled_listen, compiled_search

sys.path.insert(0, str(Path(__file__).parents[1] / "models" / "speech"))

import small_whisper

CONFIG = {
    "model_type": "whisper",
    "architectures": ["WhisperForConditionalGeneration"],
    "activation_function": "gelu",
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_mel_bins": 8,
    "max_source_positions": small_whisper.POSITIONS,
    "max_target_positions": 32,
}
PEER = Path(__file__).parents[2] / ".venv-audio/bin/python"
SIDE = Path(__file__).parents[2] / "bench/peers/whisper.py"


@pytest.fixture(scope="module")
def tokens_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokens")


@pytest.fixture(scope="module")
def recognizer(tokens_folder):
    made = small_whisper.make_recognizer(small_whisper.make_tokens(tokens_folder))
    # What is zero or one at first would hide what stands in the wrong place.
    leaves, tree = jax.tree.flatten(made.params)
    drawn = [x + jax.random.normal(jax.random.key(i), x.shape) / 8 for i, x in enumerate(leaves)]
    return type(made)(name=made.name, model=made.model, params=jax.tree.unflatten(tree, drawn), tokens=made.tokens)


@pytest.fixture
def folder(recognizer, tokens_folder, tmp_path):
    """Makes a folder as Hugging Face has them, or as CTranslate2 converts them."""
    (tmp_path / "tokenizer.json").write_bytes((tokens_folder / "tokenizer.json").read_bytes())

    def made(arrays=None, *, converted=None, **changes):
        config = CONFIG | {"vocab_size": recognizer.model.vocabulary} | changes
        (tmp_path / "config.json").write_text(json.dumps(config))
        if arrays is not None:
            save_file(arrays, tmp_path / "model.safetensors")
        if converted is not None:
            (tmp_path / "model.bin").write_bytes(converted)
        return tmp_path

    return made


def test_both_kinds_of_files_are_the_same_model(recognizer, folder):
    model, params = recognizer.model, recognizer.params
    for made in ({"arrays": at_huggingface(model, params)}, {"converted": packed(at_ctranslate2(model, params))}):
        opened = open_whisper(folder(**made))
        assert opened.model == model
        jax.tree.map(np.testing.assert_array_equal, opened.params, unstacked(model, params))
        (opened_at := folder()).joinpath("model.safetensors").unlink(missing_ok=True)
        assert opened.name == opened_at.name


def test_a_tied_head_may_be_there_twice(recognizer, folder):
    arrays = at_huggingface(recognizer.model, recognizer.params)
    table = arrays["model.decoder.embed_tokens.weight"]
    open_whisper(folder(arrays | {"proj_out.weight": table.copy()}))
    with pytest.raises(WeightsError, match="is not the embedding's table"):
        open_whisper(folder(arrays | {"proj_out.weight": table + 1}))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda held: held.pop("model.encoder.conv1.bias"), "conv1.bias is missing"),
        (lambda held: held.update(other=np.zeros(1, np.float32)), "other is in no place"),
        (lambda held: held.update({"model.encoder.conv1.bias": np.zeros(3, np.float32)}), r"the shape \[3\]"),
    ],
)
def test_weights_of_another_model_are_refused(recognizer, folder, change, match):
    arrays = at_huggingface(recognizer.model, recognizer.params)
    change(arrays)
    with pytest.raises(WeightsError, match=match):
        open_whisper(folder(arrays))


def test_a_config_of_another_model_is_refused(recognizer, folder):
    arrays = at_huggingface(recognizer.model, recognizer.params)
    for changes, match in (
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"decoder_attention_heads": 4}, "decoder_attention_heads is 4"),
        ({"scale_embedding": True}, "scale_embedding is True"),
    ):
        with pytest.raises(ConfigError, match=match):
            open_whisper(folder(arrays, **changes))


def test_other_conversions_are_refused(recognizer, folder):
    arrays = at_ctranslate2(recognizer.model, recognizer.params)
    with pytest.raises(WeightsError, match="holds a TransformerSpec, not a Whisper"):
        open_whisper(folder(converted=packed(arrays, kind="TransformerSpec")))
    del arrays["encoder/conv1/weight"]
    with pytest.raises(WeightsError, match="is no whole Whisper"):
        open_whisper(folder(converted=packed(arrays)))
    more = at_ctranslate2(recognizer.model, recognizer.params) | {
        "decoder/project/weight": np.zeros((1, 1), np.float32)
    }
    with pytest.raises(WeightsError, match="decoder/project/weight is in no place"):
        open_whisper(folder(converted=packed(more)))


def test_what_is_not_there(recognizer, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "models_folder", lambda: tmp_path / "nowhere")
    with pytest.raises(UnknownModel, match="(?s)was not fetched yet.*cupola fetch whisper-base"):
        open_whisper("whisper-base")
    with pytest.raises(UnknownModel, match="there is no folder 'smollm2'"):
        open_whisper("smollm2")
    with pytest.raises(UnknownModel, match="(?s)hears and does not write.*cupola transcribe"):
        open_model("whisper-base", precision=recognizer.model.precision)
    made = folder(at_huggingface(recognizer.model, recognizer.params))
    (made / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="cannot be read"):
        open_whisper(made)


@pytest.mark.slow
def test_the_real_weights_give_what_their_own_runtime_gives(tmp_path):
    """Numbers of the encoder, and the text, its probability and that of no speech, against CTranslate2's."""
    file = fetch.find("whisper-base")
    if file is None:
        pytest.skip("whisper-base was not fetched: cupola fetch whisper-base")
    if not PEER.exists():
        pytest.skip("the peer is not installed: bench/setup audio")
    opened = open_whisper("whisper-base")
    model, tokens = opened.model, opened.tokens
    frames = opened.front.of(_sound())[: 2 * model.encoder.positions]
    mels = np.zeros((1, 2 * model.encoder.positions, model.mels), np.float32)
    mels[0, : len(frames)] = frames
    prompt = tokens.prompt(language="en")
    hidden = tokens.suppressed(model.vocabulary)
    np.save(tmp_path / "mels.npy", mels)
    # The tasks and such are suppressed there as here; languages are, where a time or a word is far likelier.
    asked = {"prompt": prompt, "beams": 5, "suppressed": np.flatnonzero(hidden).tolist()}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    subprocess.run([PEER, SIDE, "window", file.parent, tmp_path], check=True, capture_output=True)
    theirs, told = np.load(tmp_path / "encoded.npy"), json.loads((tmp_path / "told.json").read_text())

    ours = np.asarray(jax.jit(model.encoder)(opened.params["encoder"], mels))
    # A few hundred roundings of float32 in the largest of six layers' sums, as a share of all numbers.
    allowed = 256 * np.finfo(np.float32).eps
    assert np.linalg.norm(ours - theirs) <= allowed * np.linalg.norm(theirs)
    # The control: rounding the positions alone, as a half does, is more than that.
    rounded = opened.params["encoder"] | {"positions": opened.params["encoder"]["positions"].astype(jnp.bfloat16)}
    other = np.asarray(jax.jit(model.encoder)(rounded, mels))
    assert np.linalg.norm(other - theirs) > allowed * np.linalg.norm(theirs)

    first = np.zeros(model.vocabulary, bool)
    first[tokens.blank] = True
    plan = Plan(codes=tokens.codes, choice=Choice.LIKELIEST, rows=5, ended=5, limit=224)
    held = Prompts(
        tokens=jnp.asarray([[*prompt, *[0] * (8 - len(prompt))]]),
        lengths=jnp.asarray([len(prompt)]),
        starts=jnp.asarray([0]),
        keys=jax.vmap(jax.random.key)(jnp.asarray([0])),
    )
    memories = compiled_listen(model)(opened.params, mels)
    found = compiled_search(model, plan)(
        opened.params, memories, held, jnp.asarray(hidden), jnp.asarray(first), jnp.float32(1)
    )
    length = int(found.lengths[0])
    spoken = [token for token in found.tokens[0, :length].tolist() if token < tokens.codes.end]
    assert spoken == [token for token in told["tokens"] if token < tokens.codes.end]
    assert abs(found.log_probs[0] / length - told["score"]) <= 1e3 * allowed
    assert abs(found.no_speech[0] - told["no_speech"]) <= allowed
    assert Listening().temperatures[0] == 0


def _sound() -> Clip:
    """Harmonics that glide, with pauses: no speech, but no silence either."""
    times = np.arange(16_000 * 4) / 16_000
    glide = 2 * np.pi * (120 * times + 40 * times**2)
    voiced = sum(np.sin(k * glide) / k for k in range(1, 30)) * np.maximum(0, np.sin(5 * times))
    return Clip((0.2 * voiced).astype(np.float32), 16_000)
