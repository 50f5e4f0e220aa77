import pytest

from pizero_jax.data.records import masked_crc32c, read_records
from pizero_jax.errors import InputError

FILE = "rlds_tiny-train.tfrecord-00001-of-00002"


def test_checksums_of_known_strings_rotated_and_shifted():
    """CRC-32C of RFC 3720, appendix B.4, and the usual check value; masked as TFRecord does."""
    known = {b"123456789": 0xE3069283, bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E}
    for data, crc in known.items():
        assert masked_crc32c(data) == ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


@pytest.mark.parametrize("offset", [0, 9, 5_000, 29_000], ids=["length", "checksum of length", "data", "last record"])
def test_any_flipped_bit_is_found_and_its_file_named(folder, offset):
    contents = bytearray((folder / FILE).read_bytes())
    contents[offset] ^= 1
    (folder / FILE).write_bytes(contents)
    with pytest.raises(InputError, match=rf"{FILE}: record \d+ at byte \d+ (is damaged|has a damaged)"):
        list(read_records(str(folder / FILE)))


@pytest.mark.parametrize("kept", [5, 13, 1_000, 29_094])
def test_a_cut_file_is_found_and_its_place_named(folder, kept):
    (folder / FILE).write_bytes((folder / FILE).read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"{FILE}: record \d at byte \d+ is cut short"):
        list(read_records(str(folder / FILE)))


def test_a_missing_file_is_named(folder):
    (folder / FILE).unlink()
    with pytest.raises(InputError, match=f"{FILE} is missing"):
        list(read_records(str(folder / FILE)))
