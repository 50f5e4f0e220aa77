"""Episodes as one animated picture, side by side."""

import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pizero_jax.errors import InputError
from pizero_jax.report.figures import GREEN, VERMILLION, check_pictures, enlarge

MAX_BYTES = 2_000_000  # a page with a few of them still loads at once
COLORS = 64  # of the palette; simulators render few, and halving the usual 128 saves a third of the file
HOLD = 1.5  # seconds that the end is shown before the animation starts again

_SIDE = 128  # pixels up to which a picture is enlarged; larger ones cost more bytes than they show
_BORDER, _GAP, _TEXT = 3, 6, 18  # pixels


def animate(
    episodes: Sequence[Sequence[np.ndarray]],
    labels: Sequence[str],
    path: str | Path,
    *,
    successes: Sequence[bool],
    fps: float = 20.0,
) -> None:
    """Writes a GIF of episodes in a grid; one that has ended holds its last picture, framed in its outcome's colour.

    The frame is grey while an episode runs, then green for a success and red for a failure. Pictures are
    left out evenly, the speed unchanged, until the file is below 2 MB.

    Args:
      episodes: uint8 pictures [h, w, 3] of one size, at least one per episode.
      labels: one per episode, written above it.
      path: file to write.
      successes: one per episode.
      fps: pictures per second, up to 50, which is what browsers play.

    Raises:
      InputError: if the counts differ, pictures are not as above, or fps is outside (0, 50].
    """
    check_pictures(episodes)
    if not len(labels) == len(successes) == len(episodes):
        raise InputError(
            f"{len(episodes)} episodes, {len(labels)} labels, {len(successes)} successes; give one of each"
        )
    if not 0 < fps <= 50:
        raise InputError(f"fps = {fps}; give a rate above 0 and up to 50")
    steps = max(len(episode) for episode in episodes)
    stride = 1
    while True:
        # The last step is always shown: it is where success can be seen.
        shown = [*range(0, steps - 1, stride), steps - 1]
        content = _encode([_frame(episodes, labels, successes, step) for step in shown], stride / fps)
        if len(content) <= MAX_BYTES or len(shown) <= 2:
            break
        stride *= 2
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)


def _frame(
    episodes: Sequence[Sequence[np.ndarray]], labels: Sequence[str], successes: Sequence[bool], step: int
) -> Image.Image:
    """All episodes at this step."""
    height, width = enlarge(episodes[0][0], _SIDE).shape[:2]
    cell_w, cell_h = width + 2 * _BORDER + _GAP, height + 2 * _BORDER + _TEXT + _GAP
    columns = math.ceil(math.sqrt(len(episodes)))
    lines = math.ceil(len(episodes) / columns)
    frame = Image.new("RGB", (columns * cell_w + _GAP, lines * cell_h + _GAP), "white")
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(13)
    for i, (episode, label, success) in enumerate(zip(episodes, labels, successes, strict=True)):
        x, y = _GAP + i % columns * cell_w, _GAP + i // columns * cell_h
        text = _shortened(label, lambda text: draw.textlength(text, font) <= width)
        draw.text((x + _BORDER + width / 2, y + _TEXT / 2 - 1), text, "black", font, anchor="mm")
        color = "#BBBBBB" if step < len(episode) - 1 else GREEN if success else VERMILLION
        corner = (x, y + _TEXT, x + width + 2 * _BORDER - 1, y + _TEXT + height + 2 * _BORDER - 1)
        draw.rectangle(corner, outline=color, width=_BORDER)
        picture = enlarge(episode[min(step, len(episode) - 1)], _SIDE)
        frame.paste(Image.fromarray(picture), (x + _BORDER, y + _TEXT + _BORDER))
    return frame


def _shortened(label: str, fits: Callable[[str], bool]) -> str:
    """The label, or as much of its beginning as fits; nothing if not even one letter does."""
    cuts = (label[:end] + "…" for end in range(len(label) - 1, 0, -1))
    return next((text for text in (label, *cuts) if fits(text)), "")


def _encode(frames: list[Image.Image], seconds: float) -> bytes:
    """The GIF's bytes; `seconds` per frame."""
    # One palette for all, from the first and the last frame (which has the outcomes' colours), and no dithering: what
    # stands still then has the same bytes in every frame and costs nothing.
    ends = Image.fromarray(np.concatenate([np.asarray(frames[0]), np.asarray(frames[-1])]))
    palette = ends.quantize(COLORS, dither=Image.Dither.NONE)
    first, *rest = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames)
    durations = [round(1000 * seconds)] * len(rest) + [round(1000 * HOLD)]
    content = io.BytesIO()
    first.save(content, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=False)
    return content.getvalue()
