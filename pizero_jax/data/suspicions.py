"""What looks wrong in a data set: each function looks at arrays, and says what it saw and what to change, or nothing.

None of it is proof. The borders are wide, so that what is reported is worth a look.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8

Pictures = Sequence[UInt8[np.ndarray, "h w 3"]]

MOVES = 1e-6  # standard deviation below which a dimension is constant: that of `normalize.Normalizer`
BOUND = 20.0  # size of normalised values from which they are outlying: likewise
NEAR = 0.25  # root mean square distance, in standard deviations, up to which two signals are one: 94% explained
LIKE = 0.9  # correlation from which two signals are one but for offset and scale
OPPOSITE = -0.5  # correlation from which two signals are each other's reverse: chance and lag stay above it
AT_BOUND = 0.1  # share of the frames at one extreme: quantities that are not cut meet it in a few frames only
LEVELS = 10  # a dimension of at most as many values is a switch, which is at its bounds by nature
FEW = 10  # frames or episodes from which on a share means something
BLACK = 16  # grey level: the sensor's noise behind a lens cap, and JPEG's, stay below
IDLE = 0.1  # share of frames in which nothing happens
CLOSED = 0.75  # share of episodes that begin with a closed gripper; most tasks begin with reaching
SHORT = 0.5  # share of episodes that are shorter than a chunk
DIVERSITY = 0.5  # of the episodes that independent draws would bring into a batch


class Suspicion(NamedTuple):
    seen: str
    change: str


def _if(holds: bool, seen: str, change: str) -> list[Suspicion]:
    return [Suspicion(seen, change)] if holds else []


def listed(names: Sequence[str], which: Bool[np.ndarray, "n"], limit: int = 6) -> str:
    """Those names, or the first of them and how many follow."""
    chosen = [name for name, here in zip(names, which, strict=True) if here]
    rest = len(chosen) - limit
    return ", ".join(chosen[:limit]) + (f" and {rest} more" if rest > 0 else "")


# --- Numbers ---------------------------------------------------------------------------------------------------------


def constant(std: Float[np.ndarray, "n"], names: Sequence[str]) -> list[Suspicion]:
    """Dimensions that never move."""
    still = std < MOVES
    return _if(
        still.any(),
        f"constant in all frames: {listed(names, still)}",
        "is a sensor or a command missing? There is nothing to learn: the policy reads 0, and always acts the constant",
    )


def outlying(
    extremes: Float[np.ndarray, "2 n"], q01: Float[np.ndarray, "n"], q99: Float[np.ndarray, "n"], names: Sequence[str]
) -> list[Suspicion]:
    """Dimensions whose smallest or largest value, normalised (`extremes`), is far from all others."""
    sizes = np.abs(extremes).max(axis=0)
    found = []
    for i in np.flatnonzero(sizes >= BOUND):
        found += _if(
            True,
            f"{names[i]} reaches {sizes[i]:.3g} when normalised, though 98% of its values are from {q01[i]:.4g} to "
            f"{q99[i]:.4g}",
            "if a sensor fails there, correct or leave out these frames: states are clipped at 20, and actions are not",
        )
    return found


def saturated(values: Float[np.ndarray, "frames n"], names: Sequence[str]) -> list[Suspicion]:
    """Dimensions that are at their smallest or largest value in many frames, and are no switches."""
    low, high = values.min(axis=0), values.max(axis=0)
    slack = 1e-6 * (high - low)
    counts = np.maximum((values <= low + slack).sum(axis=0), (values >= high - slack).sum(axis=0))
    which = (counts >= max(FEW, AT_BOUND * len(values))) & (high > low)
    which &= np.array([len(np.unique(column)) > LEVELS for column in values.T], bool)
    told = [
        f"{name} ({count / max(len(values), 1):.0%} at one of {a:.4g} and {b:.4g})"
        for name, count, a, b in zip(names, counts, low, high, strict=True)
    ]
    return _if(
        which.any(),
        f"at a bound in many frames: {listed(told, which)}",
        "was the command cut? Record what the robot was really told, or demonstrate with less than its full speed",
    )


def jumping(
    values: Float[np.ndarray, "n dims"], following: Float[np.ndarray, "n dims"], names: Sequence[str]
) -> list[Suspicion]:
    """Dimensions that rarely, but then between two frames, cross most of their range."""
    if not len(values):
        return []
    sizes = np.abs(following - values)
    span = np.maximum(values.max(axis=0), following.max(axis=0)) - np.minimum(values.min(axis=0), following.min(axis=0))
    crossed = (sizes > 0.8 * span) & (span > MOVES)
    found = []
    for i in np.flatnonzero(crossed.any(axis=0) & (np.quantile(sizes, 0.9, axis=0) < 0.2 * span)):
        switches = len(np.unique(values[:, i])) <= LEVELS
        found += _if(
            not switches,
            f"{names[i]} jumps by up to {sizes[:, i].max():.4g}, most of its range, between two frames, "
            f"{crossed[:, i].sum():,} times",
            "an angle that wraps around? Unwrap it, or record sine and cosine; a glitch? Leave out these frames",
        )
    return found


def idle(moved: Bool[np.ndarray, "frames"]) -> list[Suspicion]:
    """Many frames in which neither state nor action differs from those of the frame before."""
    share = 1 - moved.mean() if len(moved) else 0.0
    return _if(
        len(moved) >= FEW and share > IDLE,
        f"in {share:.0%} of the frames neither state nor action differs from the frame before",
        "a policy learns to stand still there, and may never start again: leave such frames out when you record or "
        "convert, or give the embodiment's entry `idle`",
    )


# --- What actions mean -----------------------------------------------------------------------------------------------


def meanings(
    actions: Float[np.ndarray, "n A"], state: Float[np.ndarray, "n A"], following: Float[np.ndarray, "n A"]
) -> list[str]:
    """Of each dimension what the numbers look like: "copy" of the state, its "target", its "change", or "".

    Args:
      state: of the same quantity at the frame of the action, and `following`, one frame later; NaN if there is none.
    """
    return [_meaning(*columns) for columns in zip(actions.T, state.T, following.T, strict=True)]


def _meaning(action: Float[np.ndarray, "n"], state: Float[np.ndarray, "n"], following: Float[np.ndarray, "n"]) -> str:
    action, state, following = (x.astype(np.float64) for x in (action, state, following))
    change = following - state
    if len(action) < FEW or np.isnan(change).any() or min(action.std(), change.std()) < MOVES:
        return ""
    if _rms(action - state) < 0.02 * _rms(change):
        return "copy"
    if _rms(action - following) < NEAR * following.std():
        return "target"
    return "change" if np.corrcoef(action, change)[0, 1] > LIKE else ""


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(x**2)))


def copied(meanings: Sequence[str], names: Sequence[str]) -> list[Suspicion]:
    which = np.array(meanings) == "copy"
    return _if(
        which.any(),
        f"equal to the state of the same frame: {listed(names, which)}",
        "an action should say what comes next: take the next frame's state, or what was commanded",
    )


def absolute_targets(
    meanings: Sequence[str], relative: Bool[np.ndarray, "A"], grippers: Collection[int], names: Sequence[str]
) -> list[Suspicion]:
    """Targets that the policy is asked to say absolutely; a gripper's always are."""
    which = (np.array(meanings) == "target") & ~relative
    which[list(grippers)] = False
    return _if(
        which.any(),
        f"nearly equal to the next frame's state, absolute targets: {listed(names, which)}",
        f"config.data.delta = {runs(which | relative)} would have the policy say how far away they are, which is "
        "easier to learn; leave it if the policy should say them absolutely",
    )


def runs(which: Bool[np.ndarray, "A"]) -> tuple[int, ...]:
    """As `config.data.delta` has them: (6, -1, 6) for six dimensions, all but the next, and six more."""
    ends = np.flatnonzero(np.append(np.diff(which.astype(int)), 1 if which[-1] else 0)) + 1
    lengths = np.diff(ends, prepend=0)
    return tuple(int(n) if which[end - 1] else -int(n) for n, end in zip(lengths, ends, strict=True))


def targets_called_changes(
    meanings: Sequence[str], declared: Bool[np.ndarray, "A"], where: str, names: Sequence[str]
) -> list[Suspicion]:
    which = (np.array(meanings) == "target") & declared
    return _if(
        which.any(),
        f"nearly equal to the next frame's state, though {where} calls them changes: {listed(names, which)}",
        f"correct {where}: changes add up when the rate of a chunk differs from the data set's",
    )


def changes_made_relative(
    meanings: Sequence[str], relative: Bool[np.ndarray, "A"], names: Sequence[str]
) -> list[Suspicion]:
    which = (np.array(meanings) == "change") & relative
    return _if(
        which.any(),
        f"changes of the state already, from which config.data.delta subtracts it again: {listed(names, which)}",
        "leave these dimensions out of config.data.delta",
    )


def changes_not_added(
    meanings: Sequence[str], declared: Bool[np.ndarray, "A"], where: str, names: Sequence[str]
) -> list[Suspicion]:
    """Changes over one recorded step that a chunk of another rate does not add up."""
    which = (np.array(meanings) == "change") & ~declared
    return _if(
        which.any(),
        f"changes of the state over one frame, which a chunk of another rate would not add up: {listed(names, which)}",
        f"name them as changes in {where}",
    )


def relative_without_gain(
    actions: Float[np.ndarray, "n A"],
    state: Float[np.ndarray, "n A"],
    meanings: Sequence[str],
    relative: Bool[np.ndarray, "A"],
    names: Sequence[str],
) -> list[Suspicion]:
    """Dimensions whose distance from the state varies more than they do; `state` is what is subtracted."""
    if len(actions) < FEW:
        return []
    # 1.5: a fast robot's distance varies nearly as much as its targets; unrelated numbers of one size make it 1.41.
    wider = (actions - state).std(axis=0) > 1.2 * actions.std(axis=0)
    which = wider & relative & (np.array(meanings) != "change")
    return _if(
        which.any(),
        f"vary more as distances from the state than as recorded: {listed(names, which)}",
        "config.data.delta suits targets in the order and units of the state: are these degrees beside radians, or "
        "another order?",
    )


# --- Grippers --------------------------------------------------------------------------------------------------------


def closed_at_start(openings: Float[np.ndarray, "E"], name: str) -> list[Suspicion]:
    """A gripper (1 = open) that is closed in the first frame of most episodes."""
    share = float(np.mean(openings < 0.5)) if len(openings) else 0.0
    return _if(
        len(openings) >= 3 and share >= CLOSED,
        f"{name}, where 1 is open, begins {share:.0%} of the episodes closed",
        "is its sign flipped? Compare with the first pictures; its entry in pizero_jax/data/embodiments says what the "
        "recorded numbers mean",
    )


def gripper_against_state(
    action: Float[np.ndarray, "n"], following: Float[np.ndarray, "n"], action_name: str, state_name: str
) -> list[Suspicion]:
    """A commanded opening that falls where the measured one rises; `following` is the state one frame later."""
    if len(action) < FEW or min(action.std(), following.std()) < MOVES:
        return []
    r = float(np.corrcoef(action.astype(np.float64), following.astype(np.float64))[0, 1])
    return _if(
        r < OPPOSITE,
        f"{action_name} falls where {state_name} rises: correlation {r:.2f}",
        "if both are a gripper's, one of them calls closed what the other calls open: harmless for one robot, but "
        "not in a mixture or beside weights that were trained with 1 = open",
    )


# --- Pictures --------------------------------------------------------------------------------------------------------


def black(pictures: Pictures, camera: str) -> list[Suspicion]:
    dark = sum(int(picture.max()) < BLACK for picture in pictures)
    return _if(
        dark > 0,
        f"camera {camera}: {dark} of {len(pictures)} pictures are black",
        "was the camera plugged in? A camera that is missing everywhere belongs out of config.data.cameras",
    )


def frozen(episodes: Sequence[Pictures], camera: str) -> list[Suspicion]:
    """Cameras that show one picture through whole episodes; `episodes` has some moments of each."""
    seen = [pictures for pictures in episodes if len(pictures) > 1]
    still = sum(all(np.array_equal(pictures[0], other) for other in pictures[1:]) for pictures in seen)
    return _if(
        2 * still > len(seen),
        f"camera {camera}: {still} of {len(seen)} episodes show one and the same picture throughout",
        "did the stream hang? Check how pictures and steps were matched when the data set was made",
    )


def alike(first: Pictures, second: Pictures, cameras: tuple[str, str]) -> list[Suspicion]:
    """Two cameras that show the same at the same moments."""
    same = [np.array_equal(a, b) for a, b in zip(first, second, strict=True)]
    return _if(
        bool(same) and all(same),
        f"cameras {cameras[0]} and {cameras[1]} show the same pictures",
        "name another field for one of them in config.data.cameras, or leave it out: each camera costs as much",
    )


def sizes(shapes: Mapping[str, tuple[int, int]], image_size: int) -> list[Suspicion]:
    """Pictures, (height, width) as stored, that are shrunk each time they are read, or differ between cameras."""
    told = ", ".join(f"{camera} {height} x {width}" for camera, (height, width) in shapes.items())
    found = _if(
        len(set(shapes.values())) > 1,
        f"cameras have pictures of different sizes (height x width): {told}",
        f"nothing, if that is meant: each is fitted into {image_size} x {image_size}, its aspect kept, black around it",
    )
    return found + _if(
        any(max(shape) > 2 * image_size for shape in shapes.values()),
        f"pictures are far larger than the policy's {image_size} x {image_size}: {told}",
        "store them smaller: they are decoded and shrunk again each time that they are read",
    )


# --- Episodes, instructions, order -----------------------------------------------------------------------------------


def repeated(train: Sequence[bytes], val: Sequence[bytes]) -> list[Suspicion]:
    """Episodes, by a digest of their numbers, that are there twice or in both splits."""
    twice, leaked = len(train) - len(set(train)), sum(digest in set(train) for digest in set(val))
    return _if(
        twice > 0,
        f"{twice:,} of {len(train):,} episodes repeat the numbers of another one",
        "was the data set merged twice? Make it again without the copies",
    ) + _if(
        leaked > 0,
        f"{leaked:,} of {len(val):,} held-out episodes are in the training split, too",
        "choose splits without common episodes: such a validation loss says nothing",
    )


def left_out(lines: Sequence[str]) -> list[Suspicion]:
    return _if(
        bool(lines),
        f"{len(lines):,} damaged episodes are left out; the first: {lines[0] if lines else ''}",
        "copy or make these files again",
    )


def unlabelled(count: int, episodes: int, kept: bool) -> list[Suspicion]:
    fate = "trained on with an empty prompt" if kept else "left out"
    return _if(
        count > 0,
        f"{count:,} of {episodes:,} episodes have no instruction and are {fate}",
        "config.data.unlabelled = 'skip' leaves them out" if kept else "label them, or config.data.unlabelled = 'keep'",
    )


def short(lengths: np.ndarray, chunk: int) -> list[Suspicion]:
    share = float(np.mean(lengths < chunk))
    return _if(
        share > SHORT,
        f"{share:.0%} of the episodes are shorter than a chunk of {chunk} actions",
        "most of a chunk is masked: a smaller config.policy.chunk fits better, or was an episode cut into pieces?",
    )


def cut(prompts: Mapping[str, int], limit: int) -> list[Suspicion]:
    """Instructions whose prompt takes, in tokens, more than the policy reads."""
    longest = max(prompts, key=prompts.get)
    over = sum(count > limit for count in prompts.values())
    return _if(
        over > 0,
        f"{over:,} of {len(prompts):,} prompts take more than {limit} tokens, up to {prompts[longest]}, and are cut; "
        f"the longest: {longest!r}",
        "set config.policy.prompt_length to what the longest takes, or shorten the instructions",
    )


def clustered(distinct: float, independent: float) -> list[Suspicion]:
    """Batches of fewer episodes than independent draws would bring."""
    return _if(
        distinct < DIVERSITY * independent,
        f"a batch holds frames of {distinct:.1f} episodes on average; independent draws would bring {independent:.1f}",
        "the pictures do not fit the memory at once: raise config.data.cache_gb, or store them smaller",
    )


def not_validated(held_out: int) -> list[Suspicion]:
    return _if(
        held_out == 0,
        "no episode is held out",
        "name a split in config.data.val_split; slices work, such as 'train[90%:]' beside 'train[:90%]'",
    )
