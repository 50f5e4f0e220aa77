"""A policy against recorded episodes in open loop: it looks at recorded observations only, and its actions stay unused.

What it predicts until the next look is compared with what was recorded. A wrong sign, scale, zero or normalisation of a
dimension, otherwise silent, shows here. Small errors do not prove that the policy succeeds, as its own mistakes never
lead it astray.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from pizero_jax.data import formats
from pizero_jax.data.episodes import Episode, Episodes
from pizero_jax.errors import InputError
from pizero_jax.serve.policy import TrainedPolicy

LOOKS = 16  # observations at once, always as many: the policy compiles once, and a long episode fits into memory
FLIPPED = -0.2  # correlation: that of an unrelated dimension stays above it, but for very few steps
SCALES = (0.5, 2.0)  # ratio of standard deviations: units differ by more, a policy's caution by less
ROUNDING = 1e-5  # relative: float32's 6e-8, with room for values far from their mean


@dataclasses.dataclass(frozen=True)
class Replay:
    """An episode of T steps in the data set's units; what `seen`, `mean` and `repeated` hold changes at each look."""

    episode: int
    looks: Int[np.ndarray, "n"]
    recorded: Float[np.ndarray, "T A"]
    predicted: Float[np.ndarray, "T A"]
    seen: Float[np.ndarray, "T P"]  # state
    mean: Float[np.ndarray, "T A"]  # mean action of the training data, from `seen` where the policy's are relative
    repeated: Float[np.ndarray, "T A"]  # action before the look


def open_episodes(trained: TrainedPolicy, path: str, split: str) -> Episodes:
    """The episodes of a split; InputError if their fields or widths are not those of the checkpoint."""
    config = dataclasses.replace(trained.config.data, path=path)
    episodes = formats.open_split(config, split)
    first = episodes[0]
    for name, field, values in (("state", config.state, first.state), ("actions", config.action, first.actions)):
        width = len(trained.statistics[name].mean)
        if values.shape[1] != width:
            raise InputError(
                f"config.data.path = {path!r}: field {field!r} has {values.shape[1]} dimensions, the checkpoint was "
                f"trained on {width}; give a data set of the same robot"
            )
    return episodes


def replay(trained: TrainedPolicy, episode: Episode, execute: int, key: jax.Array) -> Replay:
    """What the policy would do at each step if it looked at every `execute`-th recorded observation."""
    steps = len(episode)
    looks = np.arange(0, steps, execute)
    chunks = predict(trained, episode, looks, key)[:, :execute]
    states = episode.state[looks]
    mean = trained.statistics["actions"].mean + trained.processor.origin(states)[:, 0]
    before = np.concatenate([mean[:1], episode.actions[looks[1:] - 1]])  # nothing precedes the first look

    def held(values):
        return np.repeat(values, execute, axis=0)[:steps]

    return Replay(
        episode=episode.index,
        looks=looks,
        recorded=episode.actions,
        predicted=np.concatenate(chunks)[:steps],  # the last chunk may reach past the end of the episode
        seen=held(states),
        mean=held(mean),
        repeated=held(before),
    )


def predict(
    trained: TrainedPolicy, episode: Episode, looks: Int[np.ndarray, "n"], key: jax.Array
) -> Float[np.ndarray, "n C A"]:
    """A chunk for each look, `LOOKS` of them at once."""
    chunks = []
    for number, start in enumerate(range(0, len(looks), LOOKS)):
        some = np.resize(looks[start : start + LOOKS], LOOKS)  # the last ones repeat, unread
        observations = [
            {"images": {camera: pictures[t] for camera, pictures in episode.images.items()}, "state": episode.state[t]}
            for t in some
        ]
        said = [episode.wordings(t)[0] for t in some]
        chunks.append(trained.infer_batch(observations, said, jax.random.fold_in(key, number)))
    return np.concatenate(chunks)[: len(looks)]


def dimensions(trained: TrainedPolicy, replays: Sequence[Replay]) -> list[dict[str, Any]]:
    """One row of numbers per action dimension, over all steps, in the data set's units; None where undefined.

    "trained_std" is the spread of what the policy learnt: of differences to the state where actions are relative.
    """
    recorded, predicted, seen, mean, repeated = (
        np.concatenate([getattr(r, name) for r in replays]).astype(np.float64)
        for name in ("recorded", "predicted", "seen", "mean", "repeated")
    )
    processor = trained.processor
    restored = processor.unnormalize(processor.actions(recorded[:, None], seen), seen)[:, 0]  # chunks of one step
    columns = {
        "rmse": rmse(predicted, recorded),
        "recorded_std": recorded.std(axis=0),
        "predicted_std": predicted.std(axis=0),
        "rmse_of_mean_action": rmse(mean, recorded),
        "rmse_of_last_action": rmse(repeated, recorded),
        "correlation": [correlation(p, r) for p, r in zip(predicted.T, recorded.T, strict=True)],
        "bias": (predicted - recorded).mean(axis=0),
        "round_trip_error": np.abs(restored - recorded).max(axis=0),
        "trained_std": trained.statistics["actions"].std,
        "largest": np.abs(recorded).max(axis=0),
    }
    names = [f"{trained.config.data.action}[{a}]" for a in range(recorded.shape[1])]
    return [
        {"name": name} | {key: None if np.isnan(column[a]) else float(column[a]) for key, column in columns.items()}
        for a, name in enumerate(names)
    ]


def suspicions(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One line per dimension that looks like a mistake of convention, or unlearnt."""
    found = {row["name"]: _suspicions(row, ROUNDING * row["largest"]) for row in rows}
    return [f"{name}: {'; '.join(reasons)}" for name, reasons in found.items() if reasons]


def _suspicions(row: dict[str, Any], rounding: float) -> list[str]:
    found = []
    if row["correlation"] is not None and row["correlation"] < FLIPPED:
        found.append(f"is its sign flipped? predicted and recorded have correlation {row['correlation']:.2f}")
    ratio = row["predicted_std"] / row["recorded_std"] if row["recorded_std"] > rounding else None
    if ratio is not None and not SCALES[0] <= ratio <= SCALES[1]:
        found.append(f"is its scale another? the predicted standard deviation is {ratio:.2g} times the recorded one")
    if abs(row["bias"]) > row["trained_std"] + rounding:
        found.append(f"is its zero another? predictions are off by {row['bias']:+.3g} on average")
    if row["rmse"] > row["rmse_of_mean_action"] + rounding:
        found.append(
            f"worse than the mean: error {row['rmse']:.3g}, that of the training data's mean action "
            f"{row['rmse_of_mean_action']:.3g}"
        )
    if row["round_trip_error"] > 1e-3 * row["trained_std"] + rounding:
        found.append(f"normalising loses up to {row['round_trip_error']:.3g}: it was constant in the training data")
    return found


def rmse(predicted: Float[np.ndarray, "T A"], recorded: Float[np.ndarray, "T A"]) -> Float[np.ndarray, "A"]:
    """Root mean square error of each dimension."""
    return np.sqrt(np.mean((predicted - recorded) ** 2, axis=0))


def correlation(x: Float[np.ndarray, "T"], y: Float[np.ndarray, "T"]) -> float:
    """Pearson's; NaN where one of the two does not move."""
    moving = min(x.std(), y.std()) > ROUNDING * max(1e-12, np.abs(x).max(), np.abs(y).max())
    return float(np.corrcoef(x, y)[0, 1]) if moving else float("nan")
