"""Actions as tokens, and the text that carries them after the prompt."""

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, Float32, Int, Int64

from pizero_jax.config import ActionTokensConfig, DataConfig
from pizero_jax.data.tokenizers import PAD, PROMPTS, Tokenizer
from pizero_jax.errors import InputError

_LEAD = "Action: "  # between prompt and action tokens


@dataclasses.dataclass(frozen=True)
class Bins:
    """256 uniform bins of [-1, 1], one token per number, step by step of the chunk; what is outside is clipped.

    Source: RT-2, arXiv 2307.15818, and OpenVLA, arXiv 2406.09246; decoded to the centres of the bins.
    """

    vocabulary = 256

    def encode(self, actions: Float[np.ndarray, "C a"]) -> list[int]:
        """C * a tokens of a normalised chunk."""
        return np.clip(np.floor((actions + 1) * 128), 0, 255).astype(int).ravel().tolist()

    def decode(self, tokens: Sequence[int], C: int, a: int) -> tuple[Float32[np.ndarray, "C a"], bool]:
        """The chunk, and whether `tokens` are one: what is missing or unknown is 0, what is too much is dropped."""
        read = np.array(tokens[: C * a], np.int64)
        known = (read >= 0) & (read < self.vocabulary)
        values = np.zeros(C * a, np.float32)
        values[: len(read)] = np.where(known, (read + 0.5) / 128 - 1, 0)
        return values.reshape(C, a), bool(known.all()) and len(tokens) == C * a

    def clipped(self, actions: Float[np.ndarray, "C a"]) -> int:
        """How many of the C * a numbers lie outside [-1, 1]."""
        return int((np.abs(actions) > 1).sum())

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "bins"}


@dataclasses.dataclass(frozen=True, eq=False)
class Fast:
    """FAST: the rounded frequencies of a chunk as characters, of which byte-pair encoding makes tokens.

    A cosine transform along time (DCT-II, orthonormal) is multiplied by `scale` and rounded to integers. They are
    written lowest frequency first, all dimensions of one after another, each as the character `integer - min_token`.
    An integer that training did not see has no character and becomes the nearest one that has: outliers are clipped.
    Without them the root mean square error of a chunk is at most 0.5 / scale. (The published code clips low outliers
    and loses high ones, and with them the chunk.)

    Source: FAST, arXiv 2501.09747, section V, and physical-intelligence/fast on the Hugging Face hub.
    """

    bpe: Any  # tokenizers.Tokenizer
    scale: float
    min_token: int
    nearest: Int64[np.ndarray, "n"]  # to each integer from the lowest to the highest with a character, one that has it

    @property
    def vocabulary(self) -> int:
        """How many tokens there are: at most as many as training asked for."""
        return self.bpe.get_vocab_size()

    def encode(self, actions: Float[np.ndarray, "C a"]) -> list[int]:
        """Tokens of a normalised chunk: the smoother it is, the fewer."""
        codes = self._writable(_coefficients(actions, self.scale)) - self.min_token
        return self.bpe.encode("".join(map(chr, codes)), add_special_tokens=False).ids

    def decode(self, tokens: Sequence[int], C: int, a: int) -> tuple[Float32[np.ndarray, "C a"], bool]:
        """The chunk, and whether `tokens` are one.

        They are read up to the first that is unknown or no character, as the place of what follows it is unknown, too.
        Coefficients that are missing are 0 and those too many are dropped.
        """
        known = list(itertools.takewhile(lambda token: 0 <= token < self.vocabulary, tokens))
        text = self.bpe.decode(known)
        values = (ord(character) + self.min_token for character in text)
        read = list(itertools.takewhile(lambda value: self.nearest[0] <= value <= self.nearest[-1], values))
        coefficients = np.zeros(C * a)
        coefficients[: len(read)] = read[: C * a]
        from scipy import fft

        actions = fft.idct(coefficients.reshape(C, a) / self.scale, axis=0, norm="ortho").astype(np.float32)
        return actions, len(known) == len(tokens) and len(read) == len(text) == C * a

    def clipped(self, actions: Float[np.ndarray, "C a"]) -> int:
        """How many of the C * a coefficients have no character."""
        values = _coefficients(actions, self.scale)
        return int((self._writable(values) != values).sum())

    def _writable(self, values: Int64[np.ndarray, "Ca"]) -> Int64[np.ndarray, "Ca"]:
        lowest, highest = self.nearest[[0, -1]]
        return self.nearest[np.clip(values, lowest, highest) - lowest]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON has it; `from_dict` is the inverse."""
        return {"kind": "fast", "scale": self.scale, "min_token": self.min_token, "tokenizer": self.bpe.to_str()}

    def save(self, folder: str) -> None:
        """Writes the files of the published tokenizer, whose code on the Hugging Face hub loads them, too."""
        code = "physical-intelligence/fast--processing_action_tokenizer.UniversalActionProcessor"
        processor = dict(
            processor_class="UniversalActionProcessor",
            auto_map={"AutoProcessor": code},
            scale=self.scale,
            vocab_size=self.vocabulary,
            min_token=self.min_token,
            time_horizon=None,  # as published: of any chunk
            action_dim=None,
        )
        wrapper = dict(tokenizer_class="PreTrainedTokenizerFast", clean_up_tokenization_spaces=False)
        path = epath.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "tokenizer.json").write_text(self.bpe.to_str(pretty=True))
        (path / "processor_config.json").write_text(json.dumps(processor, indent=2))
        (path / "tokenizer_config.json").write_text(json.dumps(wrapper, indent=2))


ActionTokenizer = Bins | Fast


def make(
    config: ActionTokensConfig,
    *,
    chunks: Iterable[Float[np.ndarray, "C a"]] = (),
    saved: Mapping[str, Any] | None = None,
) -> ActionTokenizer | None:
    """The action tokenizer that `config.data.action_tokens` names, or None.

    Args:
      chunks: normalised ones to train "fast" on; they are drawn only if there is neither `saved` nor a path.
      saved: what `to_dict` gave when the policy was trained; it comes before the path.

    Raises:
      InputError: for a folder that is missing or holds no such tokenizer, for `saved` of another kind, without chunks.
    """
    if config.kind == "none":
        return None
    if saved is not None:
        if saved["kind"] != config.kind:
            raise InputError(
                f"config.data.action_tokens.kind = {config.kind!r}; the saved tokens are {saved['kind']!r}"
            )
        return from_dict(saved)
    if config.kind == "bins":
        return Bins()
    return load(config.path) if config.path else train(chunks, config.vocabulary, config.scale)


def train(chunks: Iterable[Float[np.ndarray, "C a"]], vocabulary: int, scale: float) -> Fast:
    """FAST of at most `vocabulary` tokens for such normalised chunks; the same chunks give the same tokens.

    Raises:
      InputError: without chunks, or if their coefficients take more values than there are tokens.
    """
    rows = [_coefficients(chunk, scale) for chunk in chunks]
    if not rows:
        raise InputError("config.data.action_tokens has neither a path nor chunks of actions to train on")
    lowest = min(0, *(int(row.min()) for row in rows))
    highest = max(0, *(int(row.max()) for row in rows))
    if highest - lowest >= vocabulary:
        raise InputError(
            f"config.data.action_tokens.vocabulary = {vocabulary} is less than the {highest - lowest + 1} values of "
            f"coefficients, {lowest} to {highest}; set it higher or config.data.action_tokens.scale = {scale} lower"
        )
    from tokenizers import Tokenizer as Bpe  # 0.3 s
    from tokenizers import decoders, models, trainers

    bpe = Bpe(models.BPE())
    bpe.decoder = decoders.Fuse()  # tokens side by side, without spaces
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        show_progress=False,
        special_tokens=[],
        initial_alphabet=[chr(code) for code in range(highest - lowest + 1)],
    )
    bpe.train_from_iterator(("".join(map(chr, row - lowest)) for row in rows), trainer=trainer)
    return _fast(bpe, scale, lowest)


def load(folder: str) -> Fast:
    """The tokenizer in a folder that `Fast.save` wrote or that was published as FAST; InputError says what is wrong."""
    where = f"config.data.action_tokens.path = {folder!r}"
    files = [epath.Path(folder) / name for name in ("processor_config.json", "tokenizer.json")]
    for file in files:
        if not file.is_file():
            raise InputError(f"{where} has no {file.name}; give the folder of a FAST tokenizer, or none to train one")
    try:
        processor, bpe = json.loads(files[0].read_text()), _bpe(files[1].read_text())
        return _fast(bpe, processor["scale"], processor["min_token"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} is not the folder of a FAST tokenizer: {error!r}") from error


def from_dict(saved: Mapping[str, Any]) -> ActionTokenizer:
    """The inverse of `to_dict`."""
    if saved["kind"] == "bins":
        return Bins()
    return _fast(_bpe(saved["tokenizer"]), saved["scale"], saved["min_token"])


@dataclasses.dataclass(frozen=True)
class ActionText:
    """A chunk as ids of the policy's vocabulary: `lead`, action tokens, `end`, `eos`; `text` makes it.

    Action token i has the id `first - i`, down from the end of the vocabulary.

    Source: openpi's FASTTokenizer.
    """

    tokens: ActionTokenizer
    lead: list[int]
    end: list[int]
    eos: int
    first: int

    def encode(self, actions: Float[np.ndarray, "C a"]) -> list[int]:
        """Ids of a normalised chunk, with `eos`, of any length."""
        return [*self.lead, *(self.first - token for token in self.tokens.encode(actions)), *self.end, self.eos]

    def decode(self, ids: Int[np.ndarray, "T"], C: int, a: int) -> tuple[Float32[np.ndarray, "C a"], bool]:
        """The normalised chunk that a policy wrote, and whether it wrote one as `encode` does.

        It is read from the first action token to `end` or `eos`; without either it was cut off, which is not ok. What
        is malformed never raises: `decode` of the tokenizers says what it gives.
        """
        written = list(itertools.dropwhile(lambda i: i == PAD, np.asarray(ids).tolist()))
        stops = (self.end[0], self.eos)
        led = written[: len(self.lead)] == self.lead
        rest = written[len(self.lead) :]
        if not led:
            rest = list(itertools.dropwhile(lambda i: i not in stops and not self._is_action(i), written))
        run = list(itertools.takewhile(lambda i: i not in stops, rest))
        actions, ok = self.tokens.decode([self.first - i for i in run], C, a)
        return actions, ok and led and len(run) < len(rest)

    def _is_action(self, i: int) -> bool:
        return self.first - self.tokens.vocabulary < i <= self.first


def text(tokens: ActionTokenizer, tokenizer: Tokenizer, vocabulary: int, data: DataConfig) -> ActionText:
    """How `tokens` follow the prompt of `data` in a policy of `vocabulary` ids.

    They take the ids below the last `skip`. In a SentencePiece vocabulary these are those of its rarest words.

    Raises:
      InputError: if they would take ids that the text needs: those of all bytes, or of what stands around them.
    """
    lead = [] if PROMPTS[data.prompt].pieces[-1].endswith(_LEAD) else tokenizer.encode(_LEAD)
    end, skip = tokenizer.encode("|"), data.action_tokens.skip
    needed = tokenizer.vocabulary if data.tokenizer == "bytes" else max(*lead, *end, tokenizer.eos) + 1
    room = vocabulary - skip - needed
    if room < tokens.vocabulary:
        raise InputError(
            f"config.policy.language.vocabulary = {vocabulary} has no room for {tokens.vocabulary} action tokens "
            f"between {needed} ids of text and config.data.action_tokens.skip = {skip}; set it to "
            f"{vocabulary + tokens.vocabulary - room} or more (skip may be 0 without PaliGemma's weights)"
        )
    return ActionText(tokens, lead, end, tokenizer.eos, first=vocabulary - 1 - skip)


def _coefficients(actions: Float[np.ndarray, "C a"], scale: float) -> Int64[np.ndarray, "Ca"]:
    """Rounded ones, lowest frequency first."""
    from scipy import fft  # 0.3 s: only who writes such tokens pays for it

    return np.rint(fft.dct(np.float64(actions), axis=0, norm="ortho") * scale).astype(np.int64).ravel()


def _bpe(serialized: str) -> Any:
    from tokenizers import Tokenizer as Bpe

    try:
        return Bpe.from_str(serialized)
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"tokenizer.json cannot be read: {error}") from error


def _fast(bpe: Any, scale: float, min_token: int) -> Fast:
    """With the integers that come back from `bpe` as they were: no file says which do."""
    count = min(bpe.get_vocab_size(), 0xD800)  # surrogates follow, which are no characters
    codes = [code for code, c in enumerate(map(chr, range(count))) if bpe.decode(bpe.encode(c).ids) == c]
    values = np.array(codes, np.int64) + int(min_token)
    if 0 not in values:
        raise InputError(f"the tokenizer has no character for the coefficient 0, which would be number {-min_token}")
    nearest = [values[np.abs(values - value).argmin()] for value in range(values[0], values[-1] + 1)]
    return Fast(bpe, float(scale), int(min_token), np.array(nearest))
