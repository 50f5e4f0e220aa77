import dataclasses
import math
import pathlib

import cv2
import numpy as np
import pytest
import simplejpeg

from pizero_jax.config import AugmentationConfig
from pizero_jax.data.pictures import augment, decode, resize_with_pad
from tests.data import make_rlds_tiny

GOLDEN = dict(np.load(pathlib.Path(__file__).parent / "golden_resize.npz"))
STILL = AugmentationConfig(crop=1.0, rotation=0.0, brightness=0.0, contrast=0.0, saturation=0.0)
PICTURE = make_rlds_tiny.picture(1, 2, 0)


@pytest.mark.parametrize("case", ["down", "up", "tall"])
def test_resizing_is_that_of_openpis_clients(case):
    for image, expected in zip(GOLDEN[f"{case}/u8"], GOLDEN[f"{case}/pil_u8_out"], strict=True):
        np.testing.assert_allclose(resize_with_pad(image, 32).astype(int), expected, atol=1)


def test_resizing_to_its_own_size_is_the_identity():
    assert resize_with_pad(PICTURE, 64) is PICTURE


def test_padding_is_black_and_centred():
    padded = resize_with_pad(np.full((20, 40, 3), 200, np.uint8), 40)
    assert (padded[10:30] == 200).all()
    assert not padded[:10].any()
    assert not padded[30:].any()


def test_jpeg_and_png_decode_to_rgb():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    np.testing.assert_allclose(decode(simplejpeg.encode_jpeg(red)).astype(int), red, atol=4)
    np.testing.assert_array_equal(decode(cv2.imencode(".png", red[..., ::-1])[1].tobytes()), red)


def test_augmentation_of_strength_zero_is_the_identity():
    np.testing.assert_array_equal(augment(PICTURE, np.random.default_rng(0), STILL, geometric=True), PICTURE)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_small_colour_changes_are_small_and_large_ones_are_not(name):
    def change(strength):
        config = dataclasses.replace(STILL, **{name: strength})
        return np.abs(augment(PICTURE, np.random.default_rng(0), config, geometric=True) - PICTURE.astype(float)).mean()

    assert change(1e-4) < 0.1
    assert change(0.5) > 3


@pytest.mark.parametrize("name", ["contrast", "saturation"])
def test_contrast_and_saturation_leave_mid_grey(name):
    grey = np.full((8, 8, 3), 128, np.uint8)
    config = dataclasses.replace(STILL, **{name: 0.9})
    np.testing.assert_allclose(augment(grey, np.random.default_rng(0), config, True).astype(int), grey, atol=1)


def test_brightness_multiplies():
    grey = np.full((8, 8, 3), 100, np.uint8)
    rng, draws = np.random.default_rng(3), np.random.default_rng(3).uniform(-1, 1, 6)
    changed = augment(grey, rng, dataclasses.replace(STILL, brightness=0.5), True)
    np.testing.assert_allclose(changed, 100 * (1 + 0.5 * draws[3]), atol=0.51)  # rounding


def test_rotation_turns_about_the_centre_by_the_drawn_angle():
    y, x = np.mgrid[:65, :65] - 32.0
    image = np.repeat(np.uint8(128 + 1.5 * x)[..., None], 3, axis=-1)
    angle = math.radians(20 * np.random.default_rng(5).uniform(-1, 1, 6)[0])
    turned = augment(image, np.random.default_rng(5), dataclasses.replace(STILL, rotation=20.0), True)
    expected = 128 + 1.5 * (math.cos(angle) * x - math.sin(angle) * y)
    inside = x**2 + y**2 < 28**2
    np.testing.assert_allclose(turned[inside][:, 0], expected[inside], atol=2)  # grey levels: two roundings


def test_crop_stays_inside_the_picture_and_reaches_its_edges():
    """A ramp shows which columns were kept: half of them, from any place."""
    ramp = np.repeat(np.tile(np.arange(100, dtype=np.uint8), (100, 1))[..., None], 3, axis=-1)
    config = dataclasses.replace(STILL, crop=0.5)
    crops = [augment(ramp, np.random.default_rng(seed), config, True)[50, :, 0].astype(int) for seed in range(200)]
    np.testing.assert_allclose([np.ptp(crop) for crop in crops], 49.5, atol=1)
    assert 0 <= min(crop.min() for crop in crops) <= 3
    assert 96 <= max(crop.max() for crop in crops) <= 99


def test_a_picture_much_wider_than_high_keeps_a_line():
    padded = resize_with_pad(np.full((80, 1_600, 3), 200, np.uint8), 16)
    assert padded.shape == (16, 16, 3)
    assert (padded[:, 0, 0] > 0).sum() == 1
