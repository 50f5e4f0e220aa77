import pathlib

import numpy as np
import pytest
import sentencepiece

from pizero_jax.data import tokenizers
from pizero_jax.data.tokenizers import PROMPTS
from pizero_jax.errors import InputError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """A SentencePiece model with PaliGemma's special ids: pad 0, eos 1, bos 2, unk 3."""
    prefix = str(tmp_path_factory.mktemp("model") / "tiny")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["pick up the red block", "open the drawer", "press the button"] * 20),
        model_prefix=prefix,
        vocab_size=60,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        user_defined_symbols=["\n"],
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return prefix + ".model"


def test_bytes_are_shifted_past_the_special_ids():
    tokenizer = tokenizers.make("bytes")
    assert tokenizer.encode("aé") == [97 + 3, 0xC3 + 3, 0xA9 + 3]
    assert max(tokenizer.encode("\U0010ffff")) < tokenizer.vocabulary == 259


def test_what_is_encoded_reads_as_it_was_written(model):
    for tokenizer in (tokenizers.make("bytes"), tokenizers.make(model)):
        ids = tokenizer.encode("press the button")
        assert tokenizer.decode([tokenizer.bos, *ids, tokenizers.PAD]) == "press the button"
    assert tokenizers.make("bytes").decode(tokenizers.make("bytes").encode("é")[:1]) == "\ufffd"  # cut within a letter


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("pi0", "Open the door\n"),
        ("pi05", "Task: Open the door, State: 0 128 255;\nAction: "),
        ("pi0_fast", "Task: open the door, State: 0 128 255;\n"),
    ],
)
def test_prompts_are_bos_and_the_words_of_their_form(form, expected):
    ids = tokenizers.prompt(tokenizers.make("bytes"), PROMPTS[form], "  Open_the\ndoor ", (0, 128, 255))
    assert ids == [2, *(byte + 3 for byte in expected.encode())]


def test_braces_in_an_instruction_are_text():
    ids = tokenizers.prompt(tokenizers.make("bytes"), PROMPTS["pi05"], "{state} {0}", (7,))
    assert bytes(i - 3 for i in ids[1:]) == b"Task: {state} {0}, State: 7;\nAction: "


def test_padding_is_masked_and_what_is_too_long_is_cut():
    ids, mask = tokenizers.pad([2, 5, 6], 5)
    assert ids.tolist() == [2, 5, 6, 0, 0]
    assert mask.tolist() == [True, True, True, False, False]
    assert ids.dtype == np.int32
    assert [part.tolist() for part in tokenizers.pad([2, 5, 6], 2)] == [[2, 5], [True, True]]


def test_state_bins_are_openpis():
    golden = np.load(pathlib.Path(__file__).parent / "golden_state_bins.npz")
    np.testing.assert_array_equal(tokenizers.state_bins(golden["in"], openpi=True), golden["out"])
    assert golden["out"].min() == -1  # what openpi writes below the range
    np.testing.assert_array_equal(tokenizers.state_bins(golden["in"]), np.clip(golden["out"], 0, 255))


def test_sentencepiece_prompt_decodes_to_the_text(model):
    tokenizer = tokenizers.make(model)
    theirs = sentencepiece.SentencePieceProcessor(model_file=model)
    assert tokenizer.vocabulary == theirs.vocab_size()
    ids = tokenizers.prompt(tokenizer, PROMPTS["pi0"], "open_the drawer")
    assert ids[0] == theirs.bos_id() == 2
    assert tokenizer.eos == theirs.eos_id() == 1
    assert ids == [2, *theirs.encode("open the drawer"), *theirs.encode("\n")]
    assert theirs.decode(ids).strip() == "open the drawer"


def test_a_missing_or_broken_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config.data.tokenizer = 'byte' is no file.*or 'bytes'"):
        tokenizers.make("byte")
    (tmp_path / "broken.model").write_bytes(b"not a model")
    with pytest.raises(InputError, match="broken.model' is not a SentencePiece model"):
        tokenizers.make(str(tmp_path / "broken.model"))
