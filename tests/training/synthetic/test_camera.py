import numpy as np

from posesdk_training.synthetic.camera import Camera, random_camera


def test_projection_agrees_with_that_of_the_graphics_processor():
    camera = random_camera(np.random.default_rng(3), (320, 200))
    points = np.random.default_rng(0).uniform([-5, -5, -60], [5, 5, -10], (50, 3))
    clip = np.concatenate([points, np.ones((50, 1))], axis=1) @ camera.projection.T
    device = clip[:, :2] / clip[:, 3:]
    # OpenGL's window: (0, 0) is the outer corner of the bottom-left pixel.
    window = (device + 1) / 2 * (320, 200)
    expected = np.stack([window[:, 0] - 0.5, 200 - window[:, 1] - 0.5], axis=1)
    pixels, depths = camera.project(points)
    np.testing.assert_allclose(pixels, expected, atol=1e-9)
    np.testing.assert_allclose(depths, clip[:, 3])


def test_unproject_undoes_project():
    camera = random_camera(np.random.default_rng(4), (320, 320))
    point = camera.unproject((31.0, 250.0), 40.0)
    pixels, depths = camera.project(camera.rotation @ point)
    np.testing.assert_allclose(pixels, (31.0, 250.0))
    np.testing.assert_allclose(depths, 40.0)


def test_level_camera_has_the_worlds_up():
    np.testing.assert_allclose(Camera(np.eye(3), 100.0, 64, 64).up, [0, 1, 0])
