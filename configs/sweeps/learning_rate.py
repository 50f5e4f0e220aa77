"""How fast the small pi0 of configs/pi0_metaworld.py should learn, and how long it should average its weights.

python -m launch.sweep --config=configs/pi0_metaworld.py --sweep=configs/sweeps/learning_rate.py --seeds=2
"""

from collections.abc import Iterator


def sweep() -> Iterator[dict]:
    for peak in (3e-4, 1e-3):
        for ema in (0.9, 0.99):
            yield {"optimizer.peak": peak, "optimizer.end": peak / 100, "optimizer.ema": ema}


def batch_size() -> Iterator[dict]:
    """`--sweep=configs/sweeps/learning_rate.py:batch_size`: the rate grows with the root of the batch."""
    for size in (16, 32, 64):
        yield {"batch_size": size, "optimizer.peak": 1e-3 * (size / 32) ** 0.5}
