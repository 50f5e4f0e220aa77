"""Text to token ids: prompts, with or without the state in them."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Bool, Float, Int32, Int64

from pizero_jax.errors import InputError

PAD = 0  # PaliGemma's, and ours


class Tokenizer(NamedTuple):
    """`encode(text)` gives ids below `vocabulary`, without `bos` and `eos`, which begin and end a sequence.

    `decode(ids)` gives text again, for people to read: what is no text, such as padding, is left out.
    """

    encode: Callable[[str], list[int]]
    decode: Callable[[Sequence[int]], str]
    vocabulary: int
    bos: int
    eos: int


class Prompt(NamedTuple):
    """What is written around an instruction: `pieces` become tokens one by one, {text} and {state} filled in."""

    pieces: tuple[str, ...]
    lower: bool = False  # the instruction in lower case

    @property
    def has_state(self) -> bool:
        return any("{state}" in piece for piece in self.pieces)


# Source: openpi's PaligemmaTokenizer and FASTTokenizer.
PROMPTS = {
    "pi0": Prompt(("{text}", "\n")),
    "pi05": Prompt(("Task: {text}, State: {state};\nAction: ",)),
    "pi0_fast": Prompt(("Task: {text}, State: {state};\n",), lower=True),
}


def make(name_or_path: str) -> Tokenizer:
    """The tokenizer that `config.data.tokenizer` names.

    "bytes": 0 pads, 1 ends, 2 begins, and UTF-8 bytes follow from 3: it needs no file and knows no words.
    Anything else is the path of a SentencePiece model, such as PaliGemma's for the published weights.

    Raises:
      InputError: for a file that is missing or not a SentencePiece model.
    """
    if name_or_path == "bytes":
        return Tokenizer(
            encode=lambda text: [byte + 3 for byte in text.encode()],
            decode=lambda ids: bytes(i - 3 for i in ids if 3 <= i < 259).decode(errors="replace"),
            vocabulary=259,
            bos=2,
            eos=1,
        )
    if not epath.Path(name_or_path).is_file():
        raise InputError(
            f"config.data.tokenizer = {name_or_path!r} is no file; give the path of a SentencePiece model, or 'bytes'"
        )
    import sentencepiece

    try:
        model = sentencepiece.SentencePieceProcessor(model_proto=epath.Path(name_or_path).read_bytes())
    except RuntimeError as error:
        raise InputError(f"config.data.tokenizer = {name_or_path!r} is not a SentencePiece model") from error
    return Tokenizer(
        encode=model.encode,
        decode=lambda ids: model.decode([int(i) for i in ids]),
        vocabulary=model.vocab_size(),
        bos=model.bos_id(),
        eos=model.eos_id(),
    )


def prompt(tokenizer: Tokenizer, form: Prompt, text: str, state: Iterable[int] = ()) -> list[int]:
    """Ids of bos and the instruction `text` in the words of `form`, of any length.

    Underscores and newlines within the instruction become spaces.

    Args:
      state: its bins, for a form that has them.

    Source: openpi's tokenizers, which leave the newlines in a pi0-FAST instruction.
    """
    cleaned = text.strip().replace("_", " ").replace("\n", " ")
    words = {"text": cleaned.lower() if form.lower else cleaned, "state": " ".join(map(str, state))}
    return [tokenizer.bos, *(token for piece in form.pieces for token in tokenizer.encode(piece.format(**words)))]


def state_bins(state: Float[np.ndarray, "P"], *, openpi: bool = False) -> Int64[np.ndarray, "P"]:
    """Which of 256 uniform bins of [-1, 1] each number lies in: 0 to 255, the outermost ones for what is outside.

    Args:
      state: normalised and not padded; z-scored numbers are often outside, those of quantiles seldom.
      openpi: -1 for what is below -1, as openpi writes it.

    Source: openpi's PaligemmaTokenizer.tokenize.
    """
    bins = np.digitize(state, np.linspace(-1, 1, 257)[:-1]) - 1
    return bins if openpi else np.maximum(bins, 0)


def pad(ids: Sequence[int], length: int) -> tuple[Int32[np.ndarray, "T"], Bool[np.ndarray, "T"]]:
    """The first `length` ids, padded to as many; the mask is False on padding."""
    ids = ids[:length]
    padded = np.full(length, PAD, np.int32)
    padded[: len(ids)] = ids
    return padded, np.arange(length) < len(ids)
