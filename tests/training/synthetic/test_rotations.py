import cv2
import numpy as np
import pytest

from posesdk_training.synthetic.rotations import axis_rotation, rotation_between, rotation_vectors, rotations


def test_rotations_are_those_of_opencv():
    vectors = np.random.default_rng(0).normal(size=(20, 3))
    expected = np.stack([cv2.Rodrigues(vector)[0] for vector in vectors])
    np.testing.assert_allclose(rotations(vectors), expected, atol=1e-12)
    np.testing.assert_allclose(rotations(np.zeros(3)), np.eye(3))


@pytest.mark.parametrize(("axis", "vector"), [("x", [1, 0, 0]), ("y", [0, 1, 0]), ("z", [0, 0, 1])])
def test_axis_rotation_turns_about_its_axis(axis, vector):
    angles = np.array([-2.0, 0.3])
    expected = np.stack([cv2.Rodrigues(np.array(vector) * angle)[0] for angle in angles])
    np.testing.assert_allclose(axis_rotation(axis, angles), expected, atol=1e-12)


def test_rotation_vectors_undo_rotations():
    vectors = np.random.default_rng(1).uniform(-1.5, 1.5, (20, 3))
    np.testing.assert_allclose(rotation_vectors(rotations(vectors)), vectors, atol=1e-9)


def test_rotation_between_takes_one_direction_to_the_other():
    start, end = np.array([1.0, 2.0, 0.5]), np.array([-0.3, 1.0, 4.0])
    turned = rotation_between(start, end) @ (start / np.linalg.norm(start))
    np.testing.assert_allclose(turned, end / np.linalg.norm(end), atol=1e-12)
