import json

import numpy as np
import pytest

from posesdk_runtimes.errors import DataError
from posesdk_training.synthetic.camera import Camera
from posesdk_training.synthetic.fitting import best_fit, with_fitting_limbs
from posesdk_training.synthetic.layouts import layout_scene, read_layouts
from posesdk_training.synthetic.possible import possible_poses
from posesdk_training.synthetic.rig import JOINT_BONES, posed_bones
from posesdk_training.synthetic.rotations import axis_rotation

CAMERA = Camera(axis_rotation("x", 0.2), 300.0, 320, 320)


def test_pose_that_was_projected_is_found_again(cast):
    points = cast.figures[17] @ (CAMERA.rotation @ axis_rotation("y", 0.7)).T
    labelled = np.concatenate([points[:, :2] * (8.0, -8.0) + (150.0, 170.0), np.full((17, 1), 2.0)], axis=1)
    fit = best_fit(np.random.default_rng(0), cast, CAMERA, labelled)
    assert fit.error < 0.05
    assert fit.scale == pytest.approx(8.0, rel=0.05)
    np.testing.assert_allclose(fit.pelvis, (150.0, 170.0), atol=6)


def test_limbs_of_another_pose_bring_a_fit_nearer(cast):
    view = CAMERA.rotation[:2] * np.array([[8.0], [-8.0]])
    trunk, arms = cast.figures[4].copy(), cast.figures[9]
    trunk[7:11] = arms[7:11] - arms[[5, 6, 5, 6]] + trunk[[5, 6, 5, 6]]
    labelled = np.concatenate([trunk @ view.T + 160.0, np.full((17, 1), 2.0)], axis=1)
    fit = best_fit(np.random.default_rng(2), cast, CAMERA, labelled)

    def gap(turns):
        moved = posed_bones(cast.rig, cast.heads, turns[None].astype(np.float64))[1][0]
        joints = moved[[cast.rig.number(name) for name in JOINT_BONES]] - moved[0]
        pixels = fit.scale / 8.0 * joints @ (view @ axis_rotation("y", fit.yaw)).T + fit.pelvis
        return np.linalg.norm(pixels - labelled[5:, :2], axis=1).mean()

    before = cast.library.turns[fit.pose]
    after = with_fitting_limbs(cast, CAMERA, labelled, fit)
    assert gap(after) < gap(before)
    assert possible_poses(cast.rig, posed_bones(cast.rig, cast.heads, after[None].astype(np.float64))[1])[0]


def test_unlabelled_keypoints_do_not_matter(cast):
    points = cast.figures[3] @ CAMERA.rotation.T
    labelled = np.concatenate([points[:, :2] * (6.0, -6.0) + 160.0, np.full((17, 1), 2.0)], axis=1)
    spoilt = labelled.copy()
    spoilt[:5] = 0
    fits = [best_fit(np.random.default_rng(1), cast, CAMERA, known) for known in (labelled, spoilt)]
    assert abs(fits[0].scale - fits[1].scale) < 0.5


def test_scene_has_people_near_the_labelled_ones(cast, tmp_path):
    points = cast.figures[3] @ CAMERA.rotation.T
    keypoints = np.concatenate([points[:, :2] * (9.0, -9.0) + 200.0, np.full((17, 1), 2.0)], axis=1)
    tree = {
        "images": [{"id": 4, "width": 400, "height": 400}],
        "annotations": [{"image_id": 4, "keypoints": keypoints.ravel().tolist()}],
    }
    path = tmp_path / "layout.json"
    path.write_text(json.dumps(tree))
    (layout,) = read_layouts(path)
    scenes = (layout_scene(np.random.default_rng(k), cast, (320, 320), layout, most=4) for k in range(12))
    sizes = [
        np.ptp(scene.camera.project(scene.people[0].keypoints)[0][:, 1]) / scene.camera.height
        for scene in scenes
        if scene.people
    ]
    # The window is between half the photo and all of it.
    tall = np.ptp(keypoints[:, 1]) / 400
    assert len(sizes) > 6
    assert 0.6 * tall < min(sizes)
    assert max(sizes) < 2.8 * tall


def test_file_without_labelled_people_is_refused(tmp_path):
    path = tmp_path / "none.json"
    path.write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError, match="nobody in"):
        read_layouts(path)
