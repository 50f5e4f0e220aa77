"""What a robot may send, and what each mistake is answered with."""

import time

import numpy as np
import pytest

from pizero_jax.errors import InputError
from pizero_jax.serve import msgpack_arrays
from pizero_jax.serve.request import Names, Reader
from tests.serve.conftest import ACTION, SIZE, STATE

PICTURE = np.zeros((SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": {"front": PICTURE}}, "camera 'wrist' is missing"),
        ({"images": {"front": PICTURE, "wrist": PICTURE, "rear": PICTURE}}, "'rear' is no field"),
        ({"images": {"front": PICTURE, "wrist": PICTURE, "image": PICTURE}}, "twice"),
        ({"images": {"front": None, "wrist": None}}, "all cameras are None"),
        ({"images": {"front": PICTURE[..., :2], "wrist": PICTURE}}, r"has \[16, 16, 2\]"),
        ({"images": {"front": PICTURE[0], "wrist": PICTURE}}, r"has \[16, 3\]"),
        ({"images": {"front": PICTURE[:0], "wrist": PICTURE}}, "0 x 16"),
        ({"images": {"front": np.zeros((1, 4000, 3), np.uint8), "wrist": PICTURE}}, "1 x 4000"),
        ({"images": {"front": PICTURE.astype(np.float32), "wrist": PICTURE}}, "float32"),
        ({"images": {"front": b"jpeg", "wrist": PICTURE}}, "bytes"),
        ({"state": np.zeros(4)}, "4 numbers; the policy has 3"),
        ({"state": np.zeros((1, 3))}, "state should be numbers"),
        ({"state": np.array(["a", "b", "c"])}, "state should be numbers"),
        ({"state": [[1], [1, 2]]}, "state should be numbers"),
        ({"state": [0, float("nan"), 0]}, "not finite"),
        ({"state": [0, float("inf"), 0]}, "not finite"),
        ({"state": [0, 1e300, 0]}, "not finite"),
        ({"state": None}, "state should be numbers"),
        ({"prompt": ""}, "empty"),
        ({"prompt": " \n"}, "empty"),
        ({"prompt": 3}, "the prompt is of type int"),
        ({"prompt": "reach the red target of them all"}, "takes 34 tokens; config.policy.prompt_length = 24"),
        ({"prompt": "x" * 1_000_000}, "tokens; config.policy.prompt_length = 24"),
        ({"num_steps": 3}, "none of those that the server was started with: 2 euler, 5 euler, 5 heun"),
        ({"num_steps": 2, "solver": "heun"}, "num_steps and solver are none of those"),
        ({"solver": np.zeros(2)}, "num_steps and solver"),
        ({"num_steps": True}, "num_steps"),
        ({"num_steps": [5]}, "num_steps"),
        ({"ahead": np.zeros((2, 2), np.float32), "delay": 1}, "started without --real_time"),
        ({"seed": 3}, "seed"),
        ({"seed": [1, -1]}, "seed"),
        ({"seed": [1, 2**31]}, "seed"),
        ({"executed": np.zeros((2, 3))}, r"\[n, 2\]"),
        ({"executed": np.full((2, 2), np.nan)}, "not finite"),
        ({"recorded": np.zeros((2, 3))}, r"recorded has shape \[2, 3\]"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_by_name(compiled, observe, change, message):
    reader = Reader(compiled.trained, compiled.solvers, Names())
    reader.read(msgpack_arrays.unpack(msgpack_arrays.pack(observe())))
    with pytest.raises(InputError, match=message) as error:
        reader.read(msgpack_arrays.unpack(msgpack_arrays.pack(observe() | change)))
    assert len(str(error.value)) < 200
    missing = {name: value for name, value in observe().items() if name not in change}
    if not change.keys() & {"num_steps", "solver", "seed", "executed", "recorded", "ahead"}:
        with pytest.raises(InputError, match="missing"):
            reader.read(missing)


def test_a_field_of_many_parts_is_read_in_no_time(compiled, observe):
    reader, name = Reader(compiled.trained, compiled.solvers, Names()), "." * 10**7
    began = time.process_time()
    with pytest.raises(InputError, match="'' is no field of this policy"):
        reader.read(observe() | {name: 1})
    assert time.process_time() - began < 5  # a list of its parts takes more, and 600 MB


def test_fields_may_be_named_with_or_without_what_they_are_in(compiled, observe):
    names = Names(state=("observation/joints",), ignored=("observation/extra", "timestamp"))
    reader, plain = Reader(compiled.trained, compiled.solvers, names), observe(state=2.0)
    del plain["state"]
    more = {"observation/joints": [2.0] * STATE, "extra": 1, "left/timestamp": 1, "right/timestamp": 2}
    np.testing.assert_array_equal(reader.read(plain | more).state, [2.0] * STATE)


@pytest.mark.parametrize(("field", "message"), [
    ({"prompt": np.array("reach \ud800")}, "half of a character"),
    ({"executed": np.full((1, ACTION), np.longdouble("1e4000"))}, "executed has a number that is not finite"),
])  # fmt: skip
def test_numbers_and_letters_that_only_numpy_has_are_refused(compiled, observe, field, message):
    with pytest.raises(InputError, match=message):
        Reader(compiled.trained, compiled.solvers, Names()).read(observe() | field)
