import jax.numpy as jnp
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from ggufs import FEED, HEAD, HEADS, HIDDEN, KEY_HEADS, LAYERS, VOCABULARY, numbers_in, real, write_gguf

from cupola.core.dtype import FLOAT32
from cupola.interop.errors import WeightsError
from cupola.interop.family import build
from cupola.interop.gguf import Weights, read_gguf
from cupola.kernels.matmul import Grouped
from cupola.kernels.matmul.form import dense

ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma3"]
OFFSETS = {"gemma3": 1.0}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_of_every_architecture_is_built(tmp_path, architecture):
    file = read_gguf(write_gguf(tmp_path / "m.gguf", architecture))
    model, params = build(file.config, file.tensors, precision=FLOAT32)
    assert (model.vocabulary, model.width, model.max_length, len(model.attentions())) == (
        VOCABULARY,
        HIDDEN,
        64,
        LAYERS,
    )
    attention = model.attentions()[0]
    assert (attention.heads, attention.groups, attention.head_size) == (HEADS, KEY_HEADS, HEAD)
    hidden = model(params, jnp.zeros((1, 3), jnp.int32)).states
    assert np.isfinite(hidden).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_tensors_have_their_names_and_layout_changed_back(tmp_path, architecture):
    path = write_gguf(tmp_path / "m.gguf", architecture)
    ours, theirs = read_gguf(path).tensors, numbers_in(path)
    assert len(ours) == len(theirs)
    np.testing.assert_array_equal(ours["model.layers.1.mlp.down_proj.weight"], theirs["blk.1.ffn_down.weight"])
    added = OFFSETS.get(architecture, 0)
    np.testing.assert_array_equal(ours["model.norm.weight"], theirs["output_norm.weight"] - np.float32(added))
    query = theirs["blk.0.attn_q.weight"]
    if architecture == "llama":
        # The conversion to GGUF: the halves of a head are brought together in pairs.
        back = ours["model.layers.0.self_attn.q_proj.weight"].reshape(HEADS, 2, HEAD // 2, HIDDEN)
        np.testing.assert_array_equal(back.swapaxes(1, 2).reshape(query.shape), query)
        assert not np.array_equal(ours["model.layers.0.self_attn.q_proj.weight"], query)
    else:
        np.testing.assert_array_equal(ours["model.layers.0.self_attn.q_proj.weight"], query)


@pytest.mark.parametrize(
    "kind", [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1], ids=lambda k: k.name
)
def test_every_type_of_number(tmp_path, kind):
    path = write_gguf(tmp_path / "m.gguf", "qwen3", kind)
    ours, theirs = read_gguf(path).tensors, numbers_in(path)
    up = ours["model.layers.0.mlp.up_proj.weight"]
    assert up.dtype == np.float32
    np.testing.assert_array_equal(up, theirs["blk.0.ffn_up.weight"])


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_stored_weights_are_the_same_matrices(tmp_path, architecture):
    path = write_gguf(tmp_path / "m.gguf", architecture, Kind.Q4_1)
    plain, stored = read_gguf(path), read_gguf(path, weights=Weights.STORED)
    kept = {name: t for name, t in stored.tensors.items() if isinstance(t, Grouped)}
    assert len(kept) == 7 * LAYERS
    for name, form in kept.items():
        np.testing.assert_array_equal(dense(form).T, plain.tensors[name])
    (model, params), (_, quantized) = (build(f.config, f.tensors, precision=FLOAT32) for f in (plain, stored))
    tokens = jnp.arange(6)[None]
    np.testing.assert_allclose(model(quantized, tokens).states, model(params, tokens).states, rtol=1e-5, atol=1e-5)


def test_storing_what_is_not_quantized_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="no quantized matrix"):
        read_gguf(write_gguf(tmp_path / "m.gguf", kind=Kind.F16), weights=Weights.STORED)


def test_what_gemma_is_not_told(tmp_path):
    config = read_gguf(write_gguf(tmp_path / "m.gguf", "gemma3", block_count=LAYERS)).config
    assert config["layer_types"] == ["sliding_attention"] * LAYERS
    assert (config["query_pre_attn_scalar"], config["rope_local_base_freq"]) == (HEAD, 1e4)


def test_scaled_positions(tmp_path):
    linear = {"rope__scaling__type": "linear", "rope__scaling__factor": 4.0}
    assert read_gguf(write_gguf(tmp_path / "a.gguf", **linear)).config["rope_scaling"] == {
        "rope_type": "linear",
        "factor": 4.0,
    }
    none = write_gguf(tmp_path / "b.gguf", rope__scaling__type="none")
    assert read_gguf(none).config["rope_scaling"] is None
    with pytest.raises(WeightsError, match="'yarn'"):
        read_gguf(write_gguf(tmp_path / "c.gguf", **linear | {"rope__scaling__type": "yarn"}))


def test_llama3s_table_becomes_its_four_numbers(tmp_path):
    waves = 2 * np.pi * 500000.0 ** (np.arange(0, HEAD, 2) / HEAD)
    share = np.clip((8192 / waves - 1) / 3, 0, 1)
    table = (1 / ((1 - share) / 32 + share)).astype(np.float32)
    assert len(np.unique(table)) > 1

    def write(name, table):
        return write_gguf(
            tmp_path / name, rope__freq_base=500000.0, change=lambda w: w.add_tensor("rope_freqs.weight", table)
        )

    file = read_gguf(write("a.gguf", table))
    assert file.config["rope_scaling"] == {
        "rope_type": "llama3",
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    build(file.config, file.tensors, precision=FLOAT32)
    with pytest.raises(WeightsError, match="not Llama 3's"):
        read_gguf(write("b.gguf", table[::-1].copy()))


REFUSED = {
    "no width": ({"embedding_length": None}, "embedding_length=None"),
    "no heads": ({"attention__head_count": 0}, "head_count=0"),
    "half a layer": ({"block_count": 1.5}, "no whole number"),
    "text for a number": ({"context_length": "long"}, "context_length='long'"),
    "half a head turned": ({"rope__dimension_count": HEAD // 2}, "only a part of each head"),
    "wide values": ({"attention__value_length": 2 * HEAD}, "another width than keys"),
}


@pytest.mark.parametrize(("extra", "message"), REFUSED.values(), ids=REFUSED)
def test_contradictory_metadata_is_refused(tmp_path, extra, message):
    with pytest.raises(WeightsError, match=message):
        read_gguf(write_gguf(tmp_path / "m.gguf", **extra))


def test_other_architectures_and_tensors_are_refused_by_name(tmp_path):
    with pytest.raises(WeightsError, match=r"architecture 'mamba'[\s\S]*llama, qwen2, qwen3, gemma3"):
        read_gguf(write_gguf(tmp_path / "a.gguf", "mamba"))
    expert = np.zeros((2, FEED, HIDDEN), np.float32)
    with pytest.raises(WeightsError, match=r"ffn_up_exps\.weight"):
        read_gguf(write_gguf(tmp_path / "b.gguf", change=lambda w: w.add_tensor("blk.0.ffn_up_exps.weight", expert)))


def test_heads_that_do_not_divide_the_rows_are_refused(tmp_path):
    file = read_gguf(write_gguf(tmp_path / "m.gguf", attention__head_count=5))
    with pytest.raises(WeightsError, match="do not make 5 heads"):
        file.tensors["model.layers.0.self_attn.q_proj.weight"]


def test_the_real_file_holds_what_it_should():
    file = read_gguf(real("smollm2"), weights=Weights.STORED)
    assert (file.config["hidden_size"], file.config["num_hidden_layers"], len(file.tensors)) == (576, 30, 272)
    query = file.tensors["model.layers.0.self_attn.q_proj.weight"]
    table = file.tensors["model.embed_tokens.weight"]
    assert isinstance(query, Grouped)
    assert (query.bits, query.shape, query.scales.dtype) == (4, (576, 576), np.float16)
    assert isinstance(table, Grouped)
    assert (table.bits, table.shape) == (8, (576, 49152))
