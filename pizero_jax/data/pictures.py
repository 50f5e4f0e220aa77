"""Pictures: from files to squares of grey levels, and augmentation."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from jaxtyping import Float, UInt8
from PIL import Image

from pizero_jax.config import AugmentationConfig

Picture = UInt8[np.ndarray, "h w 3"]

_GREY = np.tile([0.299, 0.587, 0.114, 0], (3, 1))  # ITU-R BT.601
_IDENTITY = np.eye(3, 4)


def decode(data: bytes, out: Picture | None = None) -> Picture:
    """RGB grey levels of a JPEG or PNG file; ValueError if it is neither.

    Args:
      out: contiguous; a JPEG picture of this size is decoded into it.
    """
    if data[:2] == b"\xff\xd8":
        if out is None or simplejpeg.decode_jpeg_header(data)[:2] != out.shape[:2]:
            return simplejpeg.decode_jpeg(data)
        simplejpeg.decode_jpeg(data, buffer=out)
        return out
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB) if data else None
    if image is None:
        raise ValueError("neither JPEG nor PNG")
    return image


def resize_with_pad(image: Picture, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The picture in a black square of `size` pixels, its aspect kept, centred.

    Bilinear with anti-aliasing, as openpi's clients do with PIL; PIL itself shrinks, because OpenCV's bilinear skips
    pixels then, and OpenCV enlarges, eight times as fast to the same grey level. Shrinking 640x480 takes about 2 ms:
    store pictures for training at the size of the policy, which costs nothing.
    """
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    scale = max(height, width) / size
    inner = width, height = max(1, int(width / scale)), max(1, int(height / scale))
    top, left = (size - height) // 2, (size - width) // 2
    square = np.zeros((size, size, 3), np.uint8)
    square[top : top + height, left : left + width] = (
        Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR) if scale > 1 else cv2.resize(image, inner)
    )
    return square


def augment(image: Picture, rng: np.random.Generator, config: AugmentationConfig, geometric: bool) -> Picture:
    """A random crop, rotation and change of colours, of the same size.

    Args:
      image: square or not, grey levels.
      rng: six draws are taken, whatever the strengths.
      config: strengths; crop 1 and the rest 0 is the identity.
      geometric: whether to crop and rotate; openpi leaves wrist cameras in place, as they move with the hand.

    Source: the kinds and strengths of openpi's preprocess_observation.
    """
    angle, *shift, brightness, contrast, saturation = rng.uniform(-1, 1, size=6).tolist()
    if geometric and (config.crop < 1 or config.rotation > 0):
        image = _warp(image, _crop_and_rotation(image.shape, config.crop, math.radians(config.rotation * angle), shift))
    if config.brightness or config.contrast or config.saturation:
        factors = 1 + config.brightness * brightness, 1 + config.contrast * contrast, 1 + config.saturation * saturation
        image = cv2.transform(image, _colours(*factors))
    return image


def _warp(image: Picture, matrix: Float[np.ndarray, "2 3"]) -> Picture:
    """The picture resampled once, its edge repeated past the border."""
    padded = cv2.cvtColor(image, cv2.COLOR_RGB2RGBA)  # OpenCV warps four channels 2.5 times as fast as three
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(padded, matrix, image.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB)


def _crop_and_rotation(shape, crop: float, angle: float, shift: Sequence[float]) -> Float[np.ndarray, "2 3"]:
    """Where each pixel of the result comes from: rotated about the centre, shrunk to the crop, shifted with it."""
    cos, sin = crop * math.cos(angle), crop * math.sin(angle)
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    to_x, to_y = (middle + move * (1 - crop) * middle for middle, move in zip((x, y), shift, strict=True))
    return np.array([[cos, -sin, to_x - cos * x + sin * y], [sin, cos, to_y - sin * x - cos * y]])


def _colours(brightness: float, contrast: float, saturation: float) -> Float[np.ndarray, "3 4"]:
    """Affine map of RGB: away from black, from mid-grey and from the pixel's own grey, by these factors."""
    gain = brightness * contrast
    grey, own = gain * (1 - saturation), gain * saturation
    matrix = grey * _GREY + own * _IDENTITY
    matrix[:, 3] = 127.5 * (1 - contrast)
    return matrix
