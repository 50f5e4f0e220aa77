"""What a config trains on, to be looked at: numbers, windows as the policy sees them, whole episodes, suspicions."""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from pizero_jax.config import TrainConfig
from pizero_jax.data import dimensions, mixture, screening, suspicions, tokenizers
from pizero_jax.data.episodes import Episode, Picture, Table
from pizero_jax.data.loader import Data, Source
from pizero_jax.data.pictures import decode, resize_with_pad
from pizero_jax.data.screening import Frames
from pizero_jax.data.suspicions import Suspicion
from pizero_jax.data.windows import labelled
from pizero_jax.errors import InputError

_LOOK = 4  # first word of the seed of what is looked at; `order` and `loader` have others
_EPISODES = 8  # whose pictures are judged, in `_MOMENTS` each
_MOMENTS = 4
_BATCHES, _ROWS = 20, 20_000  # of the order that are counted, at most
_TEXTS = 2_000  # longest instructions whose tokens are counted
_AUGMENTED = 3  # pictures beside the one as it is
_STRIP = 6  # pictures of a whole episode

Pictures = dict[str, list[UInt8[np.ndarray, "h w 3"]]]


class Curves(NamedTuple):
    """The n dimensions of states or actions over T steps."""

    names: list[str]
    recorded: Float32[np.ndarray, "T n"]
    normalised: Float32[np.ndarray, "T n"]
    real: Bool[np.ndarray, "T"]  # False for steps that are masked: past the end of the episode, or not to be learnt


class Look(NamedTuple):
    """A window as the policy sees it."""

    episode: int
    frame: int
    instruction: str
    prompt: str  # what the policy reads, in words
    tokens: int  # of the prompt before it is cut
    action_tokens: int | None  # of the chunk, for policies that learn them
    pictures: Pictures  # by camera: as it is, then augmented in several ways
    state: Curves  # at the frames of the chunk, though the policy sees the first only
    actions: Curves


class Whole(NamedTuple):
    """An episode from its beginning to its end."""

    episode: int
    instruction: str
    frames: list[int]  # of the pictures
    pictures: Pictures
    state: Curves
    actions: Curves  # normalised as the first of a chunk at each frame


class DataSet(NamedTuple):
    """What one data set of a mixture looks like; `facts` and `statistics` are plain numbers and text."""

    name: str  # "" if it is the only one
    facts: dict[str, Any]
    left_out: tuple[str, ...]  # damaged episodes, with the reason
    lengths: Int64[np.ndarray, "E"]
    instructions: list[tuple[str, int]]  # in how many episodes, from the most frequent one on
    statistics: list[dict[str, Any]]
    shapes: dict[str, tuple[int, int]]  # height and width of the pictures of each camera, as stored
    looks: list[Look]
    episodes: list[Whole]
    suspicions: list[Suspicion]


class Batches(NamedTuple):
    """How many episodes a batch mixes, on average; by data set."""

    pools: list[int]
    distinct: list[float]
    independent: list[float]  # if each row were drawn from all frames


def inspect(config: TrainConfig, data: Data, *, windows: int = 4, episodes: int = 2) -> list[DataSet]:
    """Each data set of the mixture, the same whenever it is asked; `windows` and `episodes` are drawn at random."""
    mixed = batches(config, data)
    return [_data_set(config, data, number, mixed, windows, episodes) for number in range(len(data.sources))]


def batches(config: TrainConfig, data: Data) -> Batches:
    """Of the order in which training reads, over at most 20 of its steps, evenly spaced."""
    order = data.order(config.seed, config.batch_size)
    steps = np.linspace(0, config.steps - 1, int(np.clip(_ROWS // config.batch_size, 1, _BATCHES))).astype(int)
    seen = collections.Counter()
    for step in np.unique(steps).tolist():
        rows = zip(*order(step), strict=True)
        seen.update(number for number, _ in {(int(s), data.sources[s].train.locate(int(w))[0]) for s, w in rows})
    return Batches(
        pools=[each.pools for each in order.orders],
        distinct=[seen[number] / len(np.unique(steps)) for number in range(len(data.sources))],
        independent=[independent(source.train.counts, source.share, config.batch_size) for source in data.sources],
    )


def independent(counts: Int64[np.ndarray, "E"], share: float, batch_size: int) -> float:
    """The expected number of distinct episodes among rows that are drawn, in this share, from all their frames."""
    return float(np.sum(1 - (1 - share * counts / counts.sum()) ** batch_size))


def _data_set(config: TrainConfig, data: Data, number: int, mixed: Batches, windows: int, episodes: int) -> DataSet:
    source = data.sources[number]
    recorded, table = source.train.episodes, source.train.episodes.table
    rng = np.random.default_rng((_LOOK, config.seed, number))

    def some(count: int, of: int) -> list[int]:
        return sorted(rng.choice(of, min(count, of), replace=False).tolist())

    drawn, whole = some(windows, len(source.train)), some(episodes, len(table))
    stored = [pictures for i in some(_EPISODES, len(table)) if (pictures := _stored(source, recorded[i]))]
    shapes = {camera: pictures[0].shape[:2] for camera, pictures in stored[0].items()} if stored else {}
    frames, prompts, facts = Frames.of(table, rng), _prompts(source, table), _facts(config, source, number, mixed)
    return DataSet(
        name=source.name,
        facts=facts,
        left_out=table.left_out,
        lengths=table.lengths,
        instructions=collections.Counter(_first_wordings(table)).most_common(),
        statistics=_statistics(source),
        shapes=shapes,
        looks=[look for i in drawn if (look := _look(config, source, i, (config.seed, number)))],
        episodes=[_whole(source, i) for i in whole],
        suspicions=[
            *screening.of_numbers(source, frames),
            *screening.of_meanings(source, frames),
            *screening.of_grippers(source, frames),
            *screening.of_pictures(stored, shapes, config.policy.image_size),
            *suspicions.cut(prompts, config.policy.prompt_length),
            *screening.of_episodes(config, source, facts),
        ],
    )


# --- What there is ---------------------------------------------------------------------------------------------------


def _facts(config: TrainConfig, source: Source, number: int, mixed: Batches) -> dict[str, Any]:
    table, hz = source.train.episodes.table, mixture.hz(source.config)
    seen = config.steps * config.batch_size * source.share
    said = np.logical_or.reduceat(labelled(table), np.cumsum(table.lengths) - table.lengths)
    return {
        "data set": source.name or source.config.path,
        "episodes": len(table),
        "frames": len(source.train),
        "hz": hz,
        "hours": int(table.lengths.sum()) / hz / 3600 if hz else None,
        "weight": mixture.members(config.data)[source.name].weight,
        "share of rows": source.share,
        "epochs": seen / len(source.train),
        "held-out frames": len(source.val) if source.val else 0,
        "left out": len(table.left_out),
        "without instruction": int((~said).sum()),
        "shorter than a chunk": int((table.lengths < config.policy.chunk).sum()),
        "instructions": len(set(_first_wordings(table)) - {""}),
        "pools": mixed.pools[number],
        "episodes in a batch": mixed.distinct[number],
        "if drawn independently": mixed.independent[number],
    }


def _first_wordings(table: Table) -> list[str]:
    """Of each episode."""
    return [table.texts[i].strip() for i in table.instructions[:, 0].tolist()]


def _statistics(source: Source) -> list[dict[str, Any]]:
    """One row for each dimension of state and actions, as they are normalised."""
    rows = []
    for kind, flag in (("state", "clipped"), ("actions", "outlying")):
        found = source.statistics[kind]
        flags = {
            "absent": ~dimensions.present(source, kind),
            "relative": dimensions.relative(source) if kind == "actions" else np.zeros(len(found.mean), bool),
            "constant": found.std < suspicions.MOVES,
            flag: np.abs(dimensions.extremes(source, kind)).max(axis=0) >= suspicions.BOUND,
        }
        for i, name in enumerate(dimensions.names(source, kind)):
            numbers = {key: float(getattr(found, key)[i]) for key in ("mean", "std", "q01", "q99", "min", "max")}
            rows.append({"name": name} | numbers | {"flags": [flag for flag, which in flags.items() if which[i]]})
    return rows


# --- What is shown ---------------------------------------------------------------------------------------------------


def _look(config: TrainConfig, source: Source, index: int, seed: tuple[int, int]) -> Look | None:
    """None if a picture is damaged and the config skips those."""
    windows, processor = source.train, source.processor
    window, (number, frame) = windows[index], windows.locate(index)
    rngs = [None, *(np.random.default_rng((_LOOK, *seed, index, i)) for i in range(_AUGMENTED))]
    try:
        images = window.images
        seen = [processor.observation(images, window.state, window.instruction, rng) for rng in rngs]
    except InputError as error:
        if source.config.on_corrupt == "raise":
            raise InputError(f"{window.source}: {error}") from error
        return None
    episode = windows.episodes[number]
    later = np.arange(windows.chunk) if windows.resampling is None else windows.resampling.steps(windows.chunk)[:-1]
    steps = frame + later
    state = episode.state[np.minimum(steps, len(episode) - 1)]
    actions = dimensions.normalised_actions(source, window.actions, window.moment)
    written = processor.tokens(window.actions, window.moment)
    prompt = [int(i) for i in seen[0].prompt[seen[0].prompt_mask]]
    return Look(
        episode=number,
        frame=frame,
        instruction=window.instruction,
        prompt=processor.tokenizer.decode(prompt),
        tokens=_count(source, window.instruction, window.moment),
        action_tokens=None if written is None else int(written[1].sum()),
        pictures={camera: [_last(o.images[camera], config) for o in seen] for camera in images},
        state=_curves(source, "state", state, dimensions.normalised_state(source, state), steps < len(episode)),
        actions=_curves(source, "actions", window.actions, actions, window.action_mask),
    )


def _last(picture: np.ndarray, config: TrainConfig) -> np.ndarray:
    """The picture of the frame itself."""
    return picture if config.data.history == 1 else picture[-1]


def _curves(source: Source, kind: str, recorded: np.ndarray, normalised: np.ndarray, real: np.ndarray) -> Curves:
    return Curves(dimensions.names(source, kind), recorded, normalised, real)


def _count(source: Source, instruction: str, state: Float[np.ndarray, "P"]) -> int:
    """Tokens of a prompt, however many the policy reads; none for policies without words."""
    if not source.processor.policy.prompt_length:
        return 0
    config, tokenizer = source.config, source.processor.tokenizer
    form = tokenizers.PROMPTS[config.prompt]
    bins = ()
    if form.has_state:
        bins = tokenizers.state_bins(
            dimensions.normalised_state(source, state[None])[0], openpi=config.openpi_state_bins
        )
    return len(tokenizers.prompt(tokenizer, form, instruction, bins))


def _prompts(source: Source, table: Table) -> dict[str, int]:
    """Tokens that the longest instructions take, with the mean state where the prompt has it."""
    mean = source.statistics["state"].mean.astype(np.float32)
    return {text: _count(source, text, mean) for text in sorted(table.texts, key=len)[-_TEXTS:]}


def _whole(source: Source, number: int) -> Whole:
    episode = source.train.episodes[number]
    frames = np.unique(np.linspace(0, len(episode) - 1, _STRIP).astype(int)).tolist()
    size = source.processor.policy.image_size
    stored = _stored(source, episode, frames)
    actions = dimensions.normalised_actions(source, episode.actions[:, None], episode.state)[:, 0]
    return Whole(
        episode=number,
        instruction=episode.instruction,
        frames=frames,
        pictures={camera: [resize_with_pad(p, size) for p in ps] for camera, ps in stored.items()},
        state=_curves(source, "state", episode.state, dimensions.normalised_state(source, episode.state), episode.keep),
        actions=_curves(source, "actions", episode.actions, actions, episode.keep),
    )


def _stored(source: Source, episode: Episode, frames: Sequence[int] | None = None) -> Pictures:
    """Pictures as stored, at these frames or some; none if one is damaged and the config skips those."""
    if frames is None:
        frames = np.unique(np.linspace(0, len(episode) - 1, _MOMENTS).astype(int)).tolist()
    try:
        images = episode.images
        return {camera: [_decoded(images[camera][frame]) for frame in frames] for camera in images}
    except (InputError, ValueError) as error:
        if source.config.on_corrupt == "raise":
            raise InputError(f"{episode.source}: {error}") from error
        return {}


def _decoded(picture: Picture) -> UInt8[np.ndarray, "h w 3"]:
    return decode(picture) if isinstance(picture, bytes) else picture
