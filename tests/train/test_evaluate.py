import gzip
import lzma
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cupola.data.sources import TextFiles
from cupola.data.tokenizer import Tokenizer
from cupola.data.tokens import TokenCorpus
from cupola.train.evaluate import Evaluator, compressed_bits_per_byte
from cupola.train.experiment import Evaluation
from cupola.train.state import initial

LENGTH = 24


@pytest.fixture(scope="module")
def documents(tmp_path_factory):
    """One document that fits in a row, one that takes several windows, and one with unusual characters."""
    folder = tmp_path_factory.mktemp("documents")
    texts = ["a bell", "the furnace melts iron and pours it into a mould, " * 3, "größer \u2192 \U0001f514"]
    for i, text in enumerate(texts):
        (folder / f"{i}.txt").write_text(text)
    return folder, texts


@pytest.fixture(scope="module")
def scored(documents, experiment):
    """A model with random weights, its parameters, and the corpus."""
    folder, texts = documents
    tokenizer = Tokenizer.train(texts, 270)
    made = experiment(model__vocabulary=tokenizer.vocabulary, model__stack__block__dropout=None)
    params = jax.tree.map(lambda p: 3 * p, initial(made, made.mesh.build()).params)
    return made.model, params, TokenCorpus.encode(TextFiles(path=str(folder)), tokenizer), tokenizer


def nats_by_hand(model, params, ids, stride):
    """Each target's nats by plain forwards over one window at a time, nothing packed."""
    forward = jax.jit(lambda tokens: model.logits(params, model(params, tokens).states)[0])
    targets, total, reached = [*ids[1:], ids[0]], 0.0, 0
    while reached < len(ids):
        stop = min(max(reached + stride, LENGTH), len(ids))
        first = max(stop - LENGTH, 0)
        window = [*ids[first:stop], *[0] * (LENGTH - stop + first)]  # what comes after is seen by no token before
        logits = np.asarray(forward(jnp.asarray([window])), np.float64)
        log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        total -= sum(log_probs[i - first, targets[i]] for i in range(reached, stop))
        reached = stop
    return total


@pytest.mark.parametrize("stride", [None, 5])
def test_bits_per_byte_are_those_of_a_plain_computation(scored, documents, stride):
    model, params, corpus, tokenizer = scored
    evaluation = Evaluation(batch=3, rows=None, length_tokens=LENGTH, stride_tokens=stride)
    score = Evaluator(model, [corpus], evaluation, 64).all(params)
    ids = [[tokenizer.end, *tokenizer.encode(text).tolist()] for text in documents[1]]
    assert max(map(len, ids)) > 2 * LENGTH > 2 * min(map(len, ids))
    nats = sum(nats_by_hand(model, params, each, stride or LENGTH // 2) for each in ids)
    size = sum(len(text.encode()) for text in documents[1])
    assert score.tokens == sum(map(len, ids))
    assert score.bytes == pytest.approx(size)
    assert score.loss == pytest.approx(nats / score.tokens, rel=1e-5)
    assert score.bits_per_byte == pytest.approx(nats / math.log(2) / size, rel=1e-5)


@pytest.mark.parametrize("length", [1, 7, 64])
def test_every_token_is_scored_once_whatever_the_window(scored, length):
    model, params, corpus, _ = scored
    score = Evaluator(model, [corpus, corpus], Evaluation(batch=4, length_tokens=length), 64).all(params)
    assert score.tokens == 2 * corpus.size_tokens
    assert score.bytes == pytest.approx(2 * corpus.size_bytes)


def test_a_sample_is_some_of_the_rows_and_always_the_same(scored):
    model, params, corpus, _ = scored
    evaluator = Evaluator(model, [corpus], Evaluation(batch=4, rows=2, length_tokens=LENGTH), 64)
    sample = evaluator.sample(params)
    assert 0 < sample.tokens < evaluator.all(params).tokens
    assert sample == evaluator.sample(params)
    assert sample.bytes / sample.tokens == pytest.approx(corpus.size_bytes / corpus.size_tokens)


@pytest.mark.parametrize("rows", [None, 10**6])
def test_a_sample_of_all_rows_is_all(scored, rows):
    model, params, corpus, _ = scored
    evaluator = Evaluator(model, [corpus], Evaluation(batch=4, rows=rows, length_tokens=LENGTH), 64)
    assert evaluator.sample(params).tokens == corpus.size_tokens


def test_compressors_take_each_document_by_itself():
    texts = ["furnace " * 50, "größer \u2192 " * 30]
    whole = sum(len(text.encode()) for text in texts)
    assert compressed_bits_per_byte(texts) == {
        "gzip": 8 * sum(len(gzip.compress(text.encode(), 9, mtime=0)) for text in texts) / whole,
        "xz": 8 * sum(len(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME)) for text in texts) / whole,
    }
