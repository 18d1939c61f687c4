import numpy as np
import pytest

from posesdk.poses import Poses
from posesdk.profile import Profile


def poses(count: int, **timing: float) -> Poses:
    return Poses(
        keypoints=np.zeros((count, 17, 2)),
        keypoint_scores=np.zeros((count, 17)),
        scores=np.zeros(count),
        image_size=(4, 4),
        timing=timing,
    )


def test_stages_have_their_median_and_the_total_is_of_whole_frames():
    profile = Profile()
    profile.add(poses(9, trunk=1000.0, adapt=1000.0))  # the first frame makes the backends ready
    for trunk, adapt in ((1, 30), (2, 20), (3, 10)):
        profile.add(poses(adapt // 10, trunk=trunk, adapt=adapt))
    assert [(row.stage, row.median) for row in profile.stages()] == [("trunk", 2), ("adapt", 20), ("total", 22)]
    assert profile.stages()[0].p95 == pytest.approx(2.9)
    assert profile.frames == 3
    assert profile.people == 2


def test_a_single_frame_counts():
    profile = Profile()
    profile.add(poses(1, trunk=5))
    assert (profile.frames, profile.people, profile.stages()[0].median) == (1, 1, 5)


def test_nothing_measured_gives_nothing():
    assert (Profile().stages(), Profile().people, Profile().frames) == ([], 0.0, 0)
