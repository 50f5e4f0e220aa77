import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tokenizers as library
from scipy import fft

from pizero_jax.config import ActionTokensConfig
from pizero_jax.data import action_tokens, tokenizers
from pizero_jax.data.action_tokens import Bins, Fast
from pizero_jax.errors import InputError

C, A, SCALE, VOCABULARY = 16, 3, 10.0, 200
BYTES = tokenizers.make("bytes")
FAST = ActionTokensConfig(kind="fast", path="", vocabulary=VOCABULARY, scale=SCALE, skip=0)


def walks(count: int, seed: int = 0) -> np.ndarray:
    """Smooth chunks [count, C, A]: random walks."""
    steps = np.random.default_rng(seed).normal(scale=0.1, size=(count, C, A))
    return np.cumsum(steps, axis=1).astype(np.float32)


TRAINING = walks(200)


@pytest.fixture(scope="module")
def fast() -> Fast:
    return action_tokens.train(TRAINING, VOCABULARY, SCALE)


@pytest.fixture(scope="module", params=["fast", "bins"])
def tokens(request, fast):
    return fast if request.param == "fast" else Bins()


@pytest.fixture
def text(config, tokens):
    """Sequences of the byte tokenizer in a vocabulary of 1,000 ids."""
    return action_tokens.text(tokens, BYTES, 1_000, with_tokens(config, prompt="pi0_fast"))


def with_tokens(config, skip=0, **values):
    return dataclasses.replace(config.data, action_tokens=dataclasses.replace(FAST, skip=skip), **values)


def rmse(x, y):
    return np.sqrt(np.mean((x - y) ** 2))


def test_coefficients_are_those_of_the_definition(fast):
    """DCT-II in closed form, then rounding and inverse, against a chunk that went through the tokens."""
    chunk, k, n = TRAINING[3].astype(np.float64), np.arange(C)[:, None], np.arange(C)
    basis = np.sqrt(np.where(k == 0, 1, 2) / C) * np.cos(np.pi * k * (2 * n + 1) / (2 * C))
    expected = basis.T @ (np.rint(basis @ chunk * SCALE) / SCALE)
    decoded, ok = fast.decode(fast.encode(TRAINING[3]), C, A)
    assert ok
    np.testing.assert_allclose(decoded, expected, atol=1e-6)


def test_tokens_write_the_lowest_frequency_first_and_dimensions_side_by_side(fast):
    first = np.zeros((C, A))
    first[0] = [0.5, -0.3, 0.0]
    expected = [chr(value - fast.min_token) for value in (5, -3, *[0] * (C * A - 2))]
    assert fast.bpe.decode(fast.encode(fft.idct(first, axis=0, norm="ortho"))) == "".join(expected)


def test_the_error_of_training_chunks_is_bounded(fast):
    decoded = [fast.decode(fast.encode(chunk), C, A)[0] for chunk in TRAINING]
    assert rmse(np.stack(decoded), TRAINING) <= 0.5 / SCALE
    assert rmse(np.stack(decoded), TRAINING) > 0.1 / SCALE  # it does round


def test_byte_pairs_lose_nothing(fast):
    rng = np.random.default_rng(0)
    for length in (1, 7, 100):
        codes = rng.integers(0, len(fast.nearest), length)
        written = "".join(map(chr, codes))
        assert fast.bpe.decode(fast.bpe.encode(written).ids) == written


def test_what_was_decoded_is_encoded_as_it_was(tokens):
    for chunk in np.concatenate([walks(20, seed=1), 3 * walks(5, seed=2)]):
        ids = tokens.encode(chunk)
        assert all(0 <= i < tokens.vocabulary for i in ids)
        again, ok = tokens.decode(ids, C, A)
        assert ok
        assert tokens.encode(again) == ids


def test_smooth_chunks_take_fewer_tokens(fast):
    noise = np.random.default_rng(0).normal(scale=0.2, size=(20, C, A))
    lengths = [np.mean([len(fast.encode(chunk)) for chunk in chunks]) for chunks in (walks(20, seed=1), noise)]
    assert 5 < lengths[0] < lengths[1] < C * A
    assert len(fast.encode(np.zeros((C, A)))) <= 6


def test_outliers_are_clipped_and_counted(fast):
    assert sum(fast.clipped(chunk) for chunk in TRAINING) == 0
    for sign, limit in ((1, fast.nearest[-1]), (-1, fast.nearest[0])):
        chunk = np.full((C, A), sign * 100.0)
        assert fast.clipped(chunk) == A  # its means; all else is 0
        decoded, ok = fast.decode(fast.encode(chunk), C, A)
        assert ok
        np.testing.assert_allclose(decoded, limit / SCALE / np.sqrt(C), atol=1e-6)


def test_ten_chunks_are_enough():
    few = action_tokens.train(TRAINING[:10], 1_024, SCALE)
    decoded, ok = few.decode(few.encode(TRAINING[0]), C, A)
    assert ok
    assert rmse(decoded, TRAINING[0]) <= 0.5 / SCALE
    assert len(few.encode(TRAINING[0])) < C * A
    assert few.vocabulary < 1_024  # what ten chunks have to say


def test_a_vocabulary_below_the_range_is_refused():
    with pytest.raises(
        InputError, match=r"action_tokens.vocabulary = 20 is less than the \d+ values.*scale = 10.0 lower"
    ):
        action_tokens.train(TRAINING, 20, SCALE)


def test_training_does_not_depend_on_the_process(fast):
    script = """
import json
from tests.data.test_action_tokens import *
print(json.dumps(action_tokens.train(TRAINING, VOCABULARY, SCALE).to_dict()))
"""
    for seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert json.loads(run.stdout or "null") == fast.to_dict(), run.stderr


def test_bins_err_by_half_a_bin_at_most():
    chunk = np.random.default_rng(0).uniform(-1, 1, (C, A)).astype(np.float32)
    decoded, ok = Bins().decode(Bins().encode(chunk), C, A)
    assert ok
    assert np.abs(decoded - chunk).max() <= 1 / 256 + 1e-6
    assert Bins().encode(np.array([[-1.0, 0.0, 1.0], [-9.0, 0.999, 9.0]])) == [0, 128, 255, 0, 255, 255]
    np.testing.assert_allclose(Bins().decode([0, 128, 255], 1, 3)[0], [[-255 / 256, 1 / 256, 255 / 256]])
    assert Bins().clipped(np.array([[-1.0, 0.0, 1.0], [-9.0, 0.999, 9.0]])) == 2


def test_any_tokens_decode_to_something_finite(tokens):
    rng = np.random.default_rng(0)
    for _ in range(200):
        ids = rng.integers(-5, tokens.vocabulary + 5, rng.integers(0, 2 * C * A)).tolist()
        actions, ok = tokens.decode(ids, C, A)
        assert actions.shape == (C, A)
        assert actions.dtype == np.float32
        assert np.isfinite(actions).all()
        if ok and isinstance(tokens, Bins):
            assert tokens.encode(actions) == ids


@pytest.mark.parametrize("bad", [-1, 10**6, 2**40])
def test_what_stands_before_an_unknown_token_is_read(fast, bad):
    ids = fast.encode(TRAINING[0])
    before = fast.decode(ids[:5], C, A)[0]
    assert np.abs(before).max() > 0
    decoded, ok = fast.decode([*ids[:5], bad, *ids[6:]], C, A)
    assert not ok
    np.testing.assert_array_equal(decoded, before)
    values, ok = Bins().decode([0, bad, 255], 1, 3)
    assert not ok
    assert (values[0] == 0).tolist() == [False, True, False]


def test_missing_numbers_are_zero_and_those_too_many_are_dropped(tokens):
    ids = tokens.encode(TRAINING[0])
    whole, ok = tokens.decode(ids, C, A)
    assert ok
    for malformed, expected in (([], np.zeros((C, A))), (ids + ids[:1], whole)):
        decoded, ok = tokens.decode(malformed, C, A)
        assert not ok
        np.testing.assert_array_equal(decoded, expected)
    less, ok = tokens.decode(ids[:-1], C, A)
    assert not ok
    kept = fft.dct(less, axis=0, norm="ortho") if isinstance(tokens, Fast) else less
    np.testing.assert_allclose(kept[-1, -1], 0, atol=1e-6)


def test_a_folder_and_a_dictionary_hold_the_whole_tokenizer(fast, tmp_path):
    fast.save(str(tmp_path / "fast"))
    saved = json.loads(json.dumps(fast.to_dict()))
    chunks = [*walks(5, seed=3), np.full((C, A), 100.0)]
    for copy in (
        action_tokens.make(dataclasses.replace(FAST, path=str(tmp_path / "fast"))),
        action_tokens.make(dataclasses.replace(FAST, path="/gone"), saved=saved),
    ):
        assert copy.to_dict() == fast.to_dict()
        assert [copy.encode(chunk) for chunk in chunks] == [fast.encode(chunk) for chunk in chunks]
        np.testing.assert_array_equal(copy.nearest, fast.nearest)


@pytest.fixture
def published(tmp_path):
    """A folder as the published code trains and writes it: characters as bytes, words split as GPT-2's."""
    rows = np.rint(fft.dct(TRAINING, axis=1, norm="ortho") * 40).astype(int).reshape(len(TRAINING), -1)
    low = int(rows.min())
    rows -= low
    bpe = library.ByteLevelBPETokenizer()
    trainer = library.trainers.BpeTrainer(
        vocab_size=600, special_tokens=[], initial_alphabet=[chr(i) for i in range(rows.max() + 1)], show_progress=False
    )
    bpe._tokenizer.train_from_iterator(("".join(map(chr, row)) for row in rows), trainer=trainer)
    bpe.save(str(tmp_path / "tokenizer.json"))
    config = dict(scale=40, vocab_size=600, min_token=low, time_horizon=None, action_dim=None)
    (tmp_path / "processor_config.json").write_text(json.dumps(config))
    return str(tmp_path)


def test_a_published_folder_is_read(published):
    theirs = action_tokens.load(published)
    assert theirs.nearest[-1] > 127 + theirs.min_token  # two bytes, too
    assert sum(theirs.clipped(chunk) for chunk in TRAINING) == 0
    for chunk in TRAINING[:20]:
        decoded, ok = theirs.decode(theirs.encode(chunk), C, A)
        assert ok
        assert rmse(decoded, chunk) <= 0.5 / 40
    rng = np.random.default_rng(0)
    for _ in range(100):  # often bytes that are no characters
        decoded, _ = theirs.decode(rng.integers(0, theirs.vocabulary, 40).tolist(), C, A)
        assert np.isfinite(decoded).all()
    extreme, ok = theirs.decode(theirs.encode(np.full((C, A), 100.0)), C, A)
    assert ok
    np.testing.assert_allclose(extreme, theirs.nearest[-1] / 40 / np.sqrt(C), atol=1e-6)


def test_a_coefficient_without_a_character_becomes_its_neighbour(published):
    theirs = action_tokens.load(published)
    values = np.arange(theirs.nearest[0], theirs.nearest[-1] + 1)
    gaps = values[theirs.nearest != values]
    assert len(gaps)  # bytes that training did not see
    assert np.abs(theirs.nearest - values).max() < 10
    chunk = np.zeros((C, A))
    chunk[0, 0] = gaps[0] / 40
    actions = fft.idct(chunk, axis=0, norm="ortho")
    assert theirs.clipped(actions) == 1
    decoded, ok = theirs.decode(theirs.encode(actions), C, A)
    assert ok
    chunk[0, 0] = theirs.nearest[theirs.nearest != values][0] / 40
    np.testing.assert_allclose(fft.dct(decoded, axis=0, norm="ortho"), chunk, atol=1e-6)


def test_a_character_cut_in_half_ends_the_reading(published):
    theirs = action_tokens.load(published)
    ids = [theirs.bpe.token_to_id(token) for token in ("!", "Ã", "!")]  # the first of two bytes, then none
    decoded, ok = theirs.decode(ids, C, A)
    assert not ok
    np.testing.assert_array_equal(decoded, theirs.decode(ids[:1], C, A)[0])


@pytest.mark.parametrize(
    ("file", "contents", "message"),
    [
        ("processor_config.json", None, "has no processor_config.json; give the folder of a FAST tokenizer"),
        ("tokenizer.json", None, "has no tokenizer.json"),
        ("tokenizer.json", "{}", "not the folder of a FAST tokenizer.*tokenizer.json cannot be read"),
        ("processor_config.json", "{", "not the folder of a FAST tokenizer"),
        ("processor_config.json", '{"scale": 10}', "not the folder of a FAST tokenizer.*min_token"),
        ("processor_config.json", "[]", "not the folder of a FAST tokenizer"),
        ("processor_config.json", '{"scale": 10, "min_token": -9999}', "no character for the coefficient 0"),
        ("processor_config.json", '{"scale": 10, "min_token": 5}', "no character for the coefficient 0"),
    ],
)
def test_a_broken_folder_is_named(fast, tmp_path, file, contents, message):
    fast.save(str(tmp_path))
    (tmp_path / file).unlink() if contents is None else (tmp_path / file).write_text(contents)
    with pytest.raises(InputError, match=rf"config.data.action_tokens.path = '{tmp_path}'.*{message}"):
        action_tokens.make(dataclasses.replace(FAST, path=str(tmp_path)))


def test_kinds_are_made_from_the_config():
    assert action_tokens.make(dataclasses.replace(FAST, kind="none")) is None
    bins = action_tokens.make(dataclasses.replace(FAST, kind="bins"))
    assert action_tokens.make(dataclasses.replace(FAST, kind="bins"), saved=bins.to_dict()) == bins == Bins()
    with pytest.raises(InputError, match="action_tokens.kind = 'fast'; the saved tokens are 'bins'"):
        action_tokens.make(FAST, saved=bins.to_dict())
    with pytest.raises(InputError, match="neither a path nor chunks"):
        action_tokens.make(FAST)


@pytest.mark.parametrize(("prompt", "lead"), [("pi0", b"Action: "), ("pi0_fast", b"Action: "), ("pi05", b"")])
def test_sequences_are_lead_actions_bar_and_eos(config, prompt, lead):
    text = action_tokens.text(Bins(), BYTES, 1_000, with_tokens(config, skip=10, prompt=prompt))
    ids = text.encode(np.array([[-1.0, 0.0], [1.0, -1.0]]))
    assert ids == [*(byte + 3 for byte in lead), 989, 989 - 128, 989 - 255, 989, 124 + 3, 1]  # 124 is "|"


def test_sequences_come_back(text):
    chunk = TRAINING[0]
    expected = text.tokens.decode(text.tokens.encode(chunk), C, A)[0]
    ids = text.encode(chunk)
    for sequence in (ids, [0, 0, *ids], [*ids, 0, 0], [*ids, 5, 999], ids[:-1], [*ids[:-2], 1]):
        decoded, ok = text.decode(np.array(sequence), C, A)
        assert ok
        np.testing.assert_array_equal(decoded, expected)


def test_a_sequence_that_was_cut_is_read_but_not_ok(text):
    ids = text.encode(TRAINING[0])
    decoded, ok = text.decode(np.array(ids[:-2]), C, A)  # without "|" and eos
    assert not ok
    np.testing.assert_array_equal(decoded, text.tokens.decode(text.tokens.encode(TRAINING[0]), C, A)[0])
    decoded, ok = text.decode(np.array([*ids[:20], 0, 0]), C, A)
    assert not ok
    tokens = [text.first - i for i in ids[len(text.lead) : 20]]
    np.testing.assert_array_equal(decoded, text.tokens.decode(tokens, C, A)[0])


def test_another_lead_is_skipped_but_not_ok(text):
    ids = text.encode(TRAINING[0])
    for start in ([], [50, 60], text.lead[:-1]):
        decoded, ok = text.decode(np.array([*start, *ids[len(text.lead) :]]), C, A)
        assert not ok
        np.testing.assert_array_equal(decoded, text.decode(np.array(ids), C, A)[0])


def test_nothing_is_read_past_the_end(text):
    actions = text.encode(TRAINING[0])[len(text.lead) :]
    for start in (text.lead, []):
        decoded, ok = text.decode(np.array([*start, 1, *actions]), C, A)
        assert not ok
        assert not decoded.any()


def test_any_ids_decode_to_something_finite(text):
    rng = np.random.default_rng(0)
    for i in range(200):
        ids = rng.integers(0, 1_000, rng.integers(0, 80))
        if i % 2:
            ids = np.concatenate([text.lead, text.first - rng.integers(0, text.tokens.vocabulary + 3, 60), [127, 1]])
        decoded, _ = text.decode(ids, C, A)
        assert decoded.shape == (C, A)
        assert np.isfinite(decoded).all()


def test_action_ids_that_would_take_those_of_bytes_are_refused(config):
    for vocabulary, skip in ((259 + 256, 0), (259 + 256 + 20, 20)):
        data = with_tokens(config, skip=skip)
        lowest = min(action_tokens.text(Bins(), BYTES, vocabulary, data).encode(np.ones((C, A)))[8:-2])
        assert lowest == 259  # right above the bytes
        message = (
            rf"vocabulary = {vocabulary - 1} has no room for 256 action tokens between 259 ids.*to {vocabulary} or"
        )
        with pytest.raises(InputError, match=message):
            action_tokens.text(Bins(), BYTES, vocabulary - 1, data)


def test_action_ids_may_take_those_of_rare_words_but_not_of_the_words_around_them(config):
    words = tokenizers.Tokenizer(lambda text: [300] if text == "|" else [7, 8], str, vocabulary=1_000, bos=2, eos=1)
    data = with_tokens(config, tokenizer="some.model")
    assert action_tokens.text(Bins(), words, 1_000, data).first == 999
    assert action_tokens.text(Bins(), words, 557, data).first == 556
    with pytest.raises(InputError, match="vocabulary = 556 has no room"):
        action_tokens.text(Bins(), words, 556, data)
