from pathlib import Path

import msgpack
import numpy as np
import pytest

from pizero_jax.errors import InputError
from pizero_jax.serve.msgpack_arrays import OBJECTS, pack, unpack

GOLDEN = Path(__file__).parents[1] / "golden" / "msgpack_example.bin"
EXAMPLE = {
    "observation/image": np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
    "state": np.array([1.5, -2], np.float32),
    "prompt": "pick up",
    "scalar": np.float32(2.5),
    "flag": np.bool_(True),
    "n": 3,
}
ARRAY = {b"__ndarray__": True, b"data": bytes(8), b"dtype": "<f4", b"shape": [2]}


def test_openpis_frame_is_reproduced_byte_for_byte():
    assert pack(EXAMPLE) == GOLDEN.read_bytes()


def test_openpis_frame_is_read():
    found = unpack(GOLDEN.read_bytes())
    assert list(found) == list(EXAMPLE)
    for name, value in EXAMPLE.items():
        np.testing.assert_array_equal(found[name], value)
        assert getattr(found[name], "dtype", None) == getattr(value, "dtype", None)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 0, 3), np.float32), np.array(3.5), np.arange(4, dtype=">i4"), np.array([True, False]),
        np.array(["open", "the drawer"]), np.float16(0.5), np.int64(-3), {"a": {"b": [1, None, b"x", "y", -2.5]}},
        list(range(70_000))[:300], "x" * 70_000, bytes(300), {str(i): i for i in range(20)},
    ],
)  # fmt: skip
def test_what_is_packed_is_read_again(value):
    found = unpack(pack(value))
    if isinstance(value, np.ndarray | np.generic):
        np.testing.assert_array_equal(found, value)
        assert found.dtype == value.dtype
    else:
        assert found == value


def test_arrays_are_views_that_cannot_be_written():
    found = unpack(pack(np.zeros(3)))
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 1


@pytest.mark.parametrize("value", [np.array([None]), np.zeros(2, complex), np.zeros(2, "i4,f4"), object(), 1j])
def test_what_has_no_plain_numbers_is_not_sent(value):
    with pytest.raises(InputError, match="cannot be sent"):
        pack({"state": value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({b"dtype": "|O"}, "dtype"),
        ({b"dtype": "c8"}, "dtype"),
        ({b"dtype": "f4,i4"}, "dtype"),
        ({b"dtype": "(2,2)f4"}, "dtype"),
        ({b"dtype": "f4" * 1000}, "dtype"),
        ({b"dtype": 3}, "dtype"),
        ({b"dtype": "nothing"}, "dtype"),
        ({b"shape": [3]}, "8 bytes"),
        ({b"shape": [-1, -2]}, "sizes"),
        ({b"shape": [2**40, 2**40]}, "sizes"),
        ({b"shape": [1] * 40}, "8 axes"),
        ({b"shape": "2"}, "shape"),
        ({b"shape": [2.0]}, "sizes"),
        ({b"data": "text"}, "data"),
        ({b"data": None}, "data"),
    ],
)
def test_an_array_that_is_none_is_one_clear_error(change, message):
    with pytest.raises(InputError, match=message):
        unpack(msgpack.packb(ARRAY | change))


@pytest.mark.parametrize(
    "value",
    [
        {b"__npgeneric__": True, b"data": [1], b"dtype": "<f4"},
        {b"__npgeneric__": True, b"data": "x", b"dtype": "<f4"},
        {b"__npgeneric__": True, b"data": 2**70, b"dtype": "<i4"},
        {b"__npgeneric__": True},
    ],
)
def test_a_scalar_that_is_none_is_one_clear_error(value):
    data = value.get(b"data")
    frame = msgpack.packb(value | ({b"data": 2**63} if data == 2**70 else {}))
    with pytest.raises(InputError):
        unpack(frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (b"", "truncated"),
        (GOLDEN.read_bytes()[:-1], "truncated"),
        (GOLDEN.read_bytes()[:30], "truncated"),
        (GOLDEN.read_bytes() + b"\0", "goes on"),
        (b"\x91" * 10_000 + b"\xc0", "nested"),
        (b"\x81\xa1a" * 10_000 + b"\xc0", "nested"),
        (b"\xdd\xff\xff\xff\xff", "values"),
        (b"\xdf\xff\xff\xff\xff", "values"),
        (b"\xc6\xff\xff\xff\xff", "truncated"),
        (b"\x9f" + (b"\xdc\x3f\xff" + b"\x90" * 0x3FFF) * 15, "values"),
        (b"\xc7\x01\x05\x00", "0xc7"),
        (b"\xd6\xff\x00\x00\x00\x00", "0xd6"),
        (b"\xc1", "0xc1"),
        (b"\x81\x90\xc0", "not msgpack"),
        (b"\xa1\xff", "not msgpack"),
    ],
)
def test_a_malformed_frame_is_one_clear_error(frame, message):
    with pytest.raises(InputError, match=message):
        unpack(frame)


def test_no_bytes_at_all_crash_it():
    rng, golden = np.random.default_rng(0), GOLDEN.read_bytes()
    for _ in range(20_000):
        frame = bytearray(golden)
        for place in rng.integers(0, len(frame), rng.integers(1, 4)):
            frame[place] = rng.integers(256)
        try:
            unpack(bytes(frame[: rng.integers(1, len(frame) + 1)]))
        except InputError:
            continue


def test_a_frame_of_many_small_values_is_not_unfolded():
    frame = b"\xdd" + (16 * 2**20).to_bytes(4, "big") + b"\x90" * (16 * 2**20)  # a gigabyte of empty lists
    with pytest.raises(InputError, match=f"more than {OBJECTS} values"):
        unpack(frame)


@pytest.mark.parametrize(("data", "dtype"), [(2**40, "S1"), (2**40, "<U1"), (True, "S1"), ("a", "S1"), (b"a", "<U1")])
def test_a_number_is_not_taken_for_the_length_of_a_string(data, dtype):
    frame = msgpack.packb({b"__npgeneric__": True, b"data": data, b"dtype": dtype})
    with pytest.raises(InputError, match="as its b'dtype' says"):
        unpack(frame)
