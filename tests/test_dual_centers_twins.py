"""Poses of both centers of a person are the same by the decoder of the device and by its twin in torch (oracle 13)."""

import numpy as np
import pytest

from posesdk.decode import average_flip, decode_center_offset
from posesdk.spec import DecodeSpec, ModelSpec

torch = pytest.importorskip("torch", reason="the twin is written in torch")

from posesdk_training.models.maps import DenseMaps, candidates, flip_average  # noqa: E402


def _spec(frame="consistent", threshold=0.3):
    decode = DecodeSpec(max_people=7, center_threshold=threshold)
    return ModelSpec(name="tiny", frame=frame, centers="dual", decode=decode)


def _maps(images, seed=0):
    """Heatmaps (B, 19, h, w), whose centers keep off the border, and offsets (B, 68, h, w)."""
    rng = np.random.default_rng(seed)
    heatmaps = rng.normal(size=(images, 19, 18, 25)).astype(np.float32)
    heatmaps[:, 17:] *= np.pad(np.ones((16, 23), np.float32), 1)
    return heatmaps, rng.normal(size=(images, 68, 18, 25)).astype(np.float32) * 8


def _dense(heatmaps, offsets):
    maps = (torch.from_numpy(values) for values in (heatmaps, offsets))
    return DenseMaps(*maps, torch.zeros(len(heatmaps), 0, *heatmaps.shape[2:]))


@pytest.mark.parametrize("threshold", [0.3, 1.0])
@pytest.mark.parametrize("frame", ["published", "consistent"])
def test_initial_poses_of_both_centers_are_the_same(frame, threshold):
    heatmaps, offsets = _maps(3)
    heatmaps[1, 17:] *= 0.1  # nobody reaches the threshold here: the best one of either kind stays
    spec = _spec(frame, threshold)
    twin = candidates(_dense(heatmaps, offsets), spec)
    counts = []
    for index in range(3):
        poses = decode_center_offset(heatmaps[index], offsets[index], spec)
        of_image = twin.image_index == index
        assert poses.kinds.tolist() == twin.kinds[of_image].tolist()
        np.testing.assert_array_equal(poses.centers, twin.centers[of_image, :2])
        np.testing.assert_allclose(poses.scores, twin.centers[of_image, 2], rtol=0, atol=1e-6)
        np.testing.assert_allclose(poses.keypoints, twin.poses[of_image], rtol=0, atol=1e-4)
        counts.append(len(poses))
    assert counts[0] > 8 or threshold == 1
    assert counts[1] == 1 or threshold < 1


def test_flip_average_of_both_centers_is_the_same():
    (heatmaps, offsets), spec = _maps(2, seed=1), _spec()
    mean = average_flip(heatmaps, offsets, spec.skeleton)
    twin = flip_average(_dense(heatmaps[:1], offsets[:1]), _dense(heatmaps[1:], offsets[1:]), spec.skeleton)
    np.testing.assert_allclose(mean[0], twin.heatmaps[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(mean[1], twin.offsets[0], rtol=0, atol=1e-5)
