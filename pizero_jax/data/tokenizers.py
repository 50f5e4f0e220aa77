"""Text to token ids."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Bool, Int32

from pizero_jax.types import InputError

PAD = 0  # PaliGemma's, and ours


class Tokenizer(NamedTuple):
    """`encode(text)` gives ids below `vocabulary`, without `bos`, the id that begins a sequence."""

    encode: Callable[[str], list[int]]
    vocabulary: int
    bos: int


def make(name_or_path: str) -> Tokenizer:
    """The tokenizer that `config.data.tokenizer` names.

    "bytes": 0 pads, 1 ends, 2 begins, and UTF-8 bytes follow from 3: it needs no file and knows no words.
    Anything else is the path of a SentencePiece model, such as PaliGemma's for the published weights.

    Raises:
      InputError: for a file that is missing or not a SentencePiece model.
    """
    if name_or_path == "bytes":
        return Tokenizer(encode=lambda text: [byte + 3 for byte in text.encode()], vocabulary=259, bos=2)
    if not epath.Path(name_or_path).is_file():
        raise InputError(
            f"config.data.tokenizer = {name_or_path!r} is no file; give the path of a SentencePiece model, or 'bytes'"
        )
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=epath.Path(name_or_path).read_bytes())
    except RuntimeError as error:
        raise InputError(f"config.data.tokenizer = {name_or_path!r} is not a SentencePiece model") from error
    return Tokenizer(encode=model.encode, vocabulary=model.vocab_size(), bos=model.bos_id())


def prompt(tokenizer: Tokenizer, text: str, length: int) -> tuple[Int32[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
    """pi0's prompt, bos + text + newline, padded to `length`; the mask is False on padding.

    A prompt that is too long loses its end, with a warning.

    Source: openpi's PaligemmaTokenizer.tokenize.
    """
    cleaned = text.strip().replace("_", " ").replace("\n", " ")
    ids = [tokenizer.bos, *tokenizer.encode(cleaned), *tokenizer.encode("\n")]
    if len(ids) > length:
        logging.warning(
            "prompt %r takes %d tokens and is cut to config.policy.prompt_length = %d", text, len(ids), length
        )
    ids = ids[:length]
    padded = np.full(length, PAD, np.int32)
    padded[: len(ids)] = ids
    return padded, np.arange(length) < len(ids)
