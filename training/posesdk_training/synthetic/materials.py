"""Colors and patterns of skin, hair and cloth. Colors are linear RGB."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from posesdk_training.synthetic.character import Slot

__all__ = ["LAYERS", "LAYER_SIDE", "SLOT_COUNT", "Materials", "pattern_layers", "random_materials"]

Floats = NDArray[np.float32]

SLOT_COUNT = 20
LAYER_SIDE = 128
LAYERS = 64
SKIN_LAYER, HAIR_LAYER, FOLD_LAYER, FIRST_CLOTH_LAYER = 0, 1, 2, 3
PHOTO_LAYERS = 30
"""Of all layers, those that show a piece of a photo, where there are photos."""

HAIR_COLORS = (
    (0.02, 0.015, 0.012),
    (0.06, 0.03, 0.015),
    (0.16, 0.08, 0.03),
    (0.42, 0.28, 0.12),
    (0.25, 0.24, 0.23),
    (0.30, 0.08, 0.03),
)


@dataclass(frozen=True, slots=True)
class Materials:
    """Per slot: `colors` (SLOT_COUNT, 4) RGB and the depth of folds; `patterns` (SLOT_COUNT, 4).

    A pattern is: the layer (negative: mapped along the body, else by texture coordinates), repetitions, share, gloss.
    """

    colors: Floats
    patterns: Floats


def random_materials(rng: np.random.Generator) -> Materials:
    """What one person is dressed in."""
    skin = _skin(rng)
    top, bottom, shoe, skirt, hat = (_cloth(rng) for _ in range(5))
    bare = (skin, np.array([SKIN_LAYER, rng.choice([2, 4]), rng.uniform(0.03, 0.12), rng.uniform(0, 0.15)]))
    sleeve = rng.random()
    looks = {
        Slot.HEAD: bare,
        Slot.TORSO: top,
        Slot.UPPER_ARM: top if sleeve < 0.8 else bare,
        Slot.LOWER_ARM: top if sleeve < 0.35 else bare,
        Slot.HAND: bare if rng.random() < 0.94 else _cloth(rng),
        Slot.UPPER_LEG: bottom,
        Slot.LOWER_LEG: bottom if rng.random() < 0.6 else bare,
        Slot.FOOT: shoe if rng.random() < 0.7 else bare,
        Slot.SUIT_TOP: top,
        Slot.SUIT_BOTTOM: bottom if rng.random() < 0.85 else top,
        Slot.SHOE: shoe,
        Slot.SKIRT: skirt,
        Slot.HAT: hat,
    }
    if rng.random() < 0.07:  # bathing clothes
        looks.update({Slot.TORSO: bare, Slot.UPPER_ARM: bare, Slot.LOWER_ARM: bare, Slot.LOWER_LEG: bare})
    hair = _hair(rng)
    looks[Slot.HAIR] = (
        hair,
        np.array([HAIR_LAYER, rng.choice([1, 2, 4]), rng.uniform(0.1, 0.35), rng.uniform(0, 0.25)]),
    )
    face = {
        Slot.EYE: np.array([0.75, 0.72, 0.7]),
        Slot.IRIS: np.array([0.03, 0.02, 0.02]),
        Slot.BROW: skin[:3] * 0.25 + hair[:3] * 0.3,
        Slot.LIPS: skin[:3] * np.array([1.0, 0.65, 0.65]),
    }
    colors = np.zeros((SLOT_COUNT, 4), dtype=np.float32)
    patterns = np.zeros((SLOT_COUNT, 4), dtype=np.float32)
    for slot, (color, pattern) in looks.items():
        colors[slot, : len(color)] = color
        patterns[slot] = pattern
    for slot, color in face.items():
        colors[slot, :3] = color
    return Materials(np.clip(colors, 0, 1), patterns)


def _skin(rng: np.random.Generator) -> NDArray[np.float64]:
    share = rng.random()
    light, dark = (
        (np.array([0.62, 0.38, 0.26]), np.array([0.10, 0.05, 0.03]))
        if rng.random() < 0.5
        else (np.array([0.75, 0.50, 0.38]), np.array([0.35, 0.19, 0.11]))
    )
    return np.asarray((light * (1 - share) + dark * share) * rng.uniform(0.8, 1.2))


def _hair(rng: np.random.Generator) -> NDArray[np.float64]:
    if rng.random() < 0.08:
        return np.asarray(rng.random(3) ** 2)
    return np.asarray(np.array(HAIR_COLORS[rng.integers(len(HAIR_COLORS))]) * rng.uniform(0.6, 1.4))


def _cloth(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """RGB with folds, and pattern: gray to white (40 %), denim and navy, or any color."""
    kind = rng.random()
    if kind < 0.40:
        color = np.repeat(rng.random() ** 2.2, 3) * rng.uniform(0.9, 1.1, 3)
    elif kind < 0.55:
        color = np.array([0.04, 0.07, 0.16]) * rng.uniform(0.3, 3)
    else:
        gray, share = rng.random() ** 2, rng.beta(1.2, 2.0)
        color = gray * (1 - share) + share * rng.random(3) ** 2 * rng.uniform(0.3, 1.0)
    share = 0.0 if rng.random() < 0.4 else rng.uniform(0.2, 1)
    layer = int(rng.integers(FIRST_CLOTH_LAYER, LAYERS))
    along_body = rng.random() < 0.5
    repetitions = rng.choice([1, 2, 4]) if along_body else rng.choice([1, 2, 4, 8])
    pattern = np.array([-layer if along_body else layer, repetitions, share, rng.choice([0, 0, 0.1, 0.3])])
    return np.append(color, rng.uniform(0.05, 0.4)), pattern


def pattern_layers(rng: np.random.Generator, photos: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(LAYERS, LAYER_SIDE, LAYER_SIDE, 3) RGB: skin, hair, folds, drawn patterns, and pieces of photos (BGR)."""
    layers = [_skin_noise(rng), _strands(rng), _folds(rng)]
    while len(layers) < LAYERS - PHOTO_LAYERS * bool(photos):
        layers.append(_drawn(rng, len(layers) % 6))
    while len(layers) < LAYERS:
        photo = photos[rng.integers(len(photos))]
        side = int(min(photo.shape[:2]) * rng.uniform(0.25, 0.9))
        y, x = (int(rng.integers(length - side + 1)) for length in photo.shape[:2])
        piece = cv2.resize(photo[y : y + side, x : x + side], (LAYER_SIDE, LAYER_SIDE), interpolation=cv2.INTER_AREA)
        layers.append(np.asarray((piece[..., ::-1] / 255.0) ** 2.2, dtype=np.float64))
    return (np.clip(np.stack(layers), 0, 1) * 255).astype(np.uint8)


def smooth_noise(rng: np.random.Generator, cells: tuple[int, int]) -> NDArray[np.float64]:
    """(LAYER_SIDE, LAYER_SIDE) noise of `cells` (rows, columns)."""
    side = (LAYER_SIDE, LAYER_SIDE)
    return np.asarray(cv2.resize(rng.random(cells), side, interpolation=cv2.INTER_CUBIC), dtype=np.float64)


def _gray(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.repeat(values[..., None], 3, axis=2)


def _skin_noise(rng: np.random.Generator) -> NDArray[np.float64]:
    return _gray(sum((smooth_noise(rng, (n, n)) for n in (5, 11, 23, 47)), np.zeros((LAYER_SIDE, LAYER_SIDE))) / 4)


def _strands(rng: np.random.Generator) -> NDArray[np.float64]:
    strands = np.repeat(rng.random((1, LAYER_SIDE)), LAYER_SIDE, axis=0) * 0.7
    return _gray(strands + rng.random((LAYER_SIDE, LAYER_SIDE)) * 0.1 + smooth_noise(rng, (8, LAYER_SIDE)) * 0.2) * 0.6


def _folds(rng: np.random.Generator) -> NDArray[np.float64]:
    """Ridges: where smooth noise crosses its middle."""
    noise = smooth_noise(rng, (5, 9)) + 0.5 * smooth_noise(rng, (9, 15))
    return _gray(1 - np.abs(np.sin(noise * 6)))


def _drawn(rng: np.random.Generator, kind: int) -> NDArray[np.float64]:
    """Stripes, checks, dots, patches, noise or fine stripes of two colors."""
    one, other = rng.random(3) ** 1.5, rng.random(3) ** 1.5
    count = int(rng.integers(1, 9))
    rows, columns = np.mgrid[0:LAYER_SIDE, 0:LAYER_SIDE]
    waves = [np.sin(axis * 2 * np.pi * count / LAYER_SIDE) for axis in (rows, columns)]
    if kind in (0, 1):
        mask = (waves[kind] > rng.uniform(-0.7, 0.7)).astype(np.float64)
    elif kind == 2:
        mask = ((waves[0] > 0).astype(np.float64) + (waves[1] > 0)) / 2
    elif kind == 3:
        half = LAYER_SIDE / 2
        distance = (rows * count % LAYER_SIDE - half) ** 2 + (columns * count % LAYER_SIDE - half) ** 2
        mask = (distance < (LAYER_SIDE * rng.uniform(0.2, 0.4)) ** 2).astype(np.float64)
    elif kind == 4:
        noise = sum((smooth_noise(rng, (2**n + 1, 2**n + 1)) / n for n in range(1, 5)), np.zeros(rows.shape))
        mask = (noise - noise.min()) / np.ptp(noise)
        mask = (mask > 0.5).astype(np.float64) if rng.random() < 0.5 else mask
    else:
        mask = np.repeat(np.abs(rng.normal(size=(1, LAYER_SIDE))).cumsum(1) % 1, LAYER_SIDE, axis=0)
    return np.asarray(one * mask[..., None] + other * (1 - mask[..., None]))
