import numpy as np
import pytest
import sentencepiece
from absl import logging

from pizero_jax.data import tokenizers
from pizero_jax.types import InputError


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


def test_prompt_is_bos_cleaned_text_newline_and_padding():
    tokenizer = tokenizers.make("bytes")
    ids, mask = tokenizers.prompt(tokenizer, "  open_the\ndoor ", 20)
    used = [2, *(byte + 3 for byte in b"open the door\n")]
    assert ids.tolist() == used + [0] * (20 - len(used))
    assert mask.tolist() == [True] * len(used) + [False] * (20 - len(used))
    assert ids.dtype == np.int32


def test_a_long_prompt_is_cut_with_a_warning_that_names_it(monkeypatch):
    warnings = []
    monkeypatch.setattr(logging, "warning", lambda message, *values: warnings.append(message % values))
    ids, mask = tokenizers.prompt(tokenizers.make("bytes"), "press the button", 10)
    assert ids.tolist() == [2, *(byte + 3 for byte in b"press the")]
    assert mask.all()
    assert len(warnings) == 1
    assert "'press the button'" in warnings[0]
    assert "config.policy.prompt_length = 10" in warnings[0]


def test_sentencepiece_prompt_decodes_to_the_text(model):
    tokenizer = tokenizers.make(model)
    theirs = sentencepiece.SentencePieceProcessor(model_file=model)
    assert tokenizer.vocabulary == theirs.vocab_size()
    ids, mask = tokenizers.prompt(tokenizer, "open_the drawer", 32)
    assert ids[0] == theirs.bos_id() == 2
    assert ids[mask].tolist() == [2, *theirs.encode("open the drawer"), *theirs.encode("\n")]
    assert theirs.decode(ids[mask].tolist()).strip() == "open the drawer"


def test_a_missing_or_broken_model_is_named(tmp_path):
    with pytest.raises(InputError, match=r"config.data.tokenizer = 'byte' is no file.*or 'bytes'"):
        tokenizers.make("byte")
    (tmp_path / "broken.model").write_bytes(b"not a model")
    with pytest.raises(InputError, match="broken.model' is not a SentencePiece model"):
        tokenizers.make(str(tmp_path / "broken.model"))
