"""Colours of a figure's surface: cloth, skin, hair and a face, lit by the sun and the sky."""

from dataclasses import dataclass

import numpy as np

from posesdk_converters.rendering.figure import Floats, Material
from posesdk_converters.rendering.surface import Surface

__all__ = ["Look", "shade_surface"]

SUN_COLOR = np.array([0.78, 0.92, 1.0], np.float32) * 1.15
SKY_COLOR = np.array([1.0, 0.92, 0.84], np.float32) * 0.62
EARTH_COLOR = np.array([0.75, 0.85, 0.9], np.float32) * 0.34
EYE, IRIS, BROW, LIPS = (0.032, 1.655), (0.032, 1.655), (0.033, 1.678), (0.0, 1.578)


@dataclass(frozen=True)
class Look:
    """Colour of each material, linear BGR in 0..1, and whether the shirt is striped."""

    colors: dict[Material, Floats]
    striped: bool


def shade_surface(surface: Surface, look: Look, points: Floats, sun: Floats) -> Floats:
    """Colours (M, 3), linear BGR, of surface points (M, 3); `sun` points to the sun, all in the figure's frame."""
    material = np.argmin(surface.distances(points), axis=1)
    albedo = np.empty_like(points)
    normal = surface.normals(points)
    for index, name in enumerate(surface.materials):
        here = material == index
        albedo[here] = _albedo(name, look, points[here])
        if name in ("shirt", "trousers"):
            normal[here] = _fold(normal[here], points[here])
    open_sky = 0.45 + 0.55 * np.clip(surface.nearest(points + 0.09 * normal) / 0.09, 0, 1)
    lit = np.clip(normal @ sun, 0, 1) * surface.sunlight(points + 0.01 * normal, sun)
    up = 0.5 + 0.5 * normal[:, 1:2]
    around = (up * SKY_COLOR + (1 - up) * EARTH_COLOR) * open_sky[:, None]
    return np.asarray(np.clip(albedo * (around + lit[:, None] * SUN_COLOR), 0, 1))


def _albedo(name: Material, look: Look, points: Floats) -> Floats:
    base = np.repeat(look.colors[name][None], len(points), axis=0)
    x, y, z = points.T
    if name == "skin":
        return _face(base, look.colors["hair"], points)
    if name == "hair":
        return np.asarray(base * (0.85 + 0.25 * np.sin(230 * x + 30 * z + 2 * np.sin(25 * y))[:, None] ** 2))
    if name == "shirt" and look.striped:
        return np.where((np.sin(y * 75) > 0.2)[:, None], base, np.float32(0.75))
    if name == "trousers":
        belt = np.abs(y - 1.0) < 0.015
        return np.where(belt[:, None], np.float32(0.02), base * (0.9 + 0.1 * np.sin(900 * x + 900 * y))[:, None])
    return base


def _fold(normal: Floats, points: Floats) -> Floats:
    """Normals tilted as by folds of cloth."""
    x, y, z = points.T
    wave = np.sin(38 * y + 9 * x + 2.5 * np.sin(14 * x + 11 * z + 6 * y)) * np.sin(13 * y - 17 * x + 5 * z)
    tilted = normal + 0.16 * np.stack([0.5 * wave, wave, 0.3 * wave], axis=1)
    return np.asarray(tilted / np.linalg.norm(tilted, axis=1, keepdims=True), np.float32)


def _face(skin: Floats, hair: Floats, points: Floats) -> Floats:
    """Skin with eyes, brows, lips and a flush on the front of the head."""
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    front = z > 0.03
    flush = _bgr(0.55, 0.6, 1.0) * skin
    for center, radii, color, strength in (
        ((0.042, 1.61), (0.03, 0.025), flush, 0.35),
        (LIPS, (0.026, 0.009), _bgr(0.16, 0.14, 0.42) * (0.4 + skin), 0.8),
        (LIPS, (0.024, 0.0022), _bgr(0.03, 0.02, 0.06), 0.8),
        (BROW, (0.02, 0.0055), hair * 0.7, 0.9),
        (EYE, (0.0175, 0.0095), _bgr(0.05, 0.05, 0.07), 0.7),
        (EYE, (0.015, 0.0075), _bgr(0.5, 0.52, 0.54), 1.0),
        (IRIS, (0.0075, 0.0078), _bgr(0.03, 0.035, 0.05), 1.0),
        ((0.009, 1.606), (0.005, 0.004), _bgr(0.05, 0.05, 0.1), 0.6),
    ):
        inside = np.hypot((x - center[0]) / radii[0], (y - center[1]) / radii[1])
        cover = np.where(front, np.clip((1.25 - inside) / 0.5, 0, 1), 0)[:, None] * strength
        skin = skin + (color - skin) * cover
    return np.asarray(skin, np.float32)


def _bgr(blue: float, green: float, red: float) -> Floats:
    return np.array([blue, green, red], np.float32)
