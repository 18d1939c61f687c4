"""The rendered people: reproducible, where their keypoints say, on a surface that agrees with a brute search."""

import numpy as np
import pytest

from posesdk_converters.rendering.figure import Figure, Posture, Wardrobe, build_figure
from posesdk_converters.rendering.render import render_people
from posesdk_converters.rendering.scenery import Camera
from posesdk_converters.rendering.surface import Surface

SIZE = (120, 160)


def test_same_seed_gives_same_picture_and_another_seed_another():
    first, again = (render_people(4, people=1, size=SIZE, samples=1) for _ in range(2))
    other = render_people(5, people=1, size=SIZE, samples=1)
    np.testing.assert_array_equal(first.image, again.image)
    assert first.image.shape == (*SIZE, 3)
    assert first.image.dtype == np.uint8
    assert np.abs(first.image.astype(int) - other.image).mean() > 5


def test_people_are_upright_inside_the_picture_and_side_by_side():
    found = render_people(1, people=3, size=SIZE, samples=1).keypoints
    assert found.shape == (3, 17, 2)
    assert (found >= 0).all()
    assert (found < (SIZE[1], SIZE[0])).all()
    nose, hips, ankles = found[:, 0, 1], found[:, 11:13, 1].mean(axis=1), found[:, 15:17, 1].mean(axis=1)
    assert (nose < hips).all()
    assert (hips < ankles).all()
    assert (np.diff(found[:, 0, 0]) > 15).all()


def test_nobody_is_a_mistake():
    with pytest.raises(ValueError, match="people 0"):
        render_people(people=0)


def test_rays_through_keypoints_of_the_limbs_meet_the_figure():
    figure = build_figure(Posture(), Wardrobe())
    eye = np.array([0, 1.2, 4], np.float32)
    to_keypoints = figure.keypoints - eye
    directions = to_keypoints / np.linalg.norm(to_keypoints, axis=1, keepdims=True)
    hit, way = Surface.of(figure).cast_rays(eye, np.vstack([directions, [[0, 1, 0]]]).astype(np.float32))
    assert hit[:17].all()
    assert not hit[17]
    np.testing.assert_allclose(way[:17], np.linalg.norm(to_keypoints, axis=1), atol=0.2)


def test_distance_to_one_part_agrees_with_a_search_over_its_axis():
    figure = Figure(1.0)
    figure.add("skin", (0.1, 1.0, 0.0), (0.3, 1.4, -0.2), (0.1, 0.04))
    figure.add("hair", (0, 9, 0), (0, 9, 0), (0.01, 0.01))
    points = np.random.default_rng(0).uniform(-1, 2, (50, 3)).astype(np.float32)
    along = np.linspace(0, 1, 2001)[:, None]
    axis = np.array([0.1, 1.0, 0.0]) + along * np.array([0.2, 0.4, -0.2])
    gaps = np.linalg.norm(points[:, None] - axis, axis=2)
    nearest = gaps.argmin(axis=1)
    expected = gaps.min(axis=1) - (0.1 + along[nearest, 0] * (0.04 - 0.1))
    surface = Surface.of(figure)
    skin = list(surface.materials).index("skin")
    np.testing.assert_allclose(surface.distances(points)[:, skin], expected, atol=2e-3)


def test_camera_sees_along_a_ray_what_it_projects_to_the_rays_pixel():
    camera = Camera((6, 8), focal=7.0, height=1.3, pitch=0.2)
    points = camera.rays(1) * 5 + np.array([0, 1.3, 0], np.float32)
    columns, rows = np.meshgrid(np.arange(8), np.arange(6))
    np.testing.assert_allclose(camera.project(points), np.stack([columns, rows], axis=-1), atol=1e-4)
