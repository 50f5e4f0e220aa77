"""Episodes in the documented layout of a data set: every field is there, and what a test does not set is poison."""

import numpy as np

from tests.data.embodiments.features import FEATURES, Feature


def row(width: int, **columns: list[float]) -> list[float]:
    """`width` numbers of which those from column 3 on are `_3=[...]`; the others are not to be read."""
    numbers = [np.nan] * width
    for start, values in columns.items():
        numbers[int(start[1:]) : int(start[1:]) + len(values)] = values
    return numbers


def episode(name: str, steps: int, instruction: str, **recorded: list) -> dict:
    """What `steps` steps of the data set record.

    Args:
      instruction: of every step, in whichever field of text is documented.
      recorded: numbers of each step by the path with "__" for "/".
    """
    values = {path.replace("__", "/"): numbers for path, numbers in recorded.items()}
    features = FEATURES[name]
    assert set(values) <= set(features), sorted(set(values) - set(features))
    return {path: _field(path, steps, feature, instruction, values.get(path)) for path, feature in features.items()}


def picture(path: str, step: int) -> bytes:
    """Stands for an encoded picture: nothing here decodes it."""
    return f"{path} at {step}".encode()


def _field(path: str, steps: int, feature: Feature, instruction: str, values: list | None):
    shape, dtype = feature
    if dtype == np.object_:
        words = instruction if path.endswith("language_instruction") else "not an instruction"
        return [words.encode()] * steps
    if dtype == np.uint8 and len(shape) == 3:
        return [picture(path, step) for step in range(steps)]
    if values is None:
        poison = np.nan if np.issubdtype(dtype, np.floating) else np.ones(1, dtype)[0]
        return np.full((steps, *shape), poison, dtype)
    return np.array(values, dtype).reshape(steps, *shape)
