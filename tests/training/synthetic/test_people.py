import numpy as np
import pytest

from posesdk_training.synthetic.assets import AssetFolder
from posesdk_training.synthetic.body import random_shape, shaped_vertices
from posesdk_training.synthetic.clothing import Wardrobe, fitted_vertices
from posesdk_training.synthetic.motion import captured_poses, mirrored
from posesdk_training.synthetic.possible import possible_poses
from posesdk_training.synthetic.rig import posed_bones, skinning_matrices
from posesdk_training.synthetic.rotations import axis_rotation, rotations


def test_bones_go_where_the_chain_of_their_parents_takes_them(base):
    rig = base.rig
    heads = rig.head_positions(base.mesh.vertices)
    turns = rotations(np.random.default_rng(0).normal(0, 0.4, (len(rig.names), 3)))
    moved = posed_bones(rig, heads, turns)[1]
    for name in ("wrist.L", "foot.R", "head"):
        bone = rig.number(name)
        point = heads[bone]
        while (bone := int(rig.parents[bone])) >= 0:  # every bone above turns the point about its own head
            point = heads[bone] + turns[bone] @ (point - heads[bone])
        np.testing.assert_allclose(moved[rig.number(name)], point, atol=1e-9)


def test_rest_pose_moves_nothing(base):
    heads = base.rig.head_positions(base.mesh.vertices)
    turned, moved = posed_bones(base.rig, heads, np.tile(np.eye(3), (len(heads), 1, 1)))
    np.testing.assert_allclose(
        skinning_matrices(heads, turned, moved), np.tile(np.eye(4), (len(heads), 1, 1)), atol=1e-12
    )


def test_every_vertex_is_carried_by_bones(base):
    np.testing.assert_allclose(base.rig.weights.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
def test_fitted_clothes_stay_near_the_body(assets, base, seed):
    wardrobe = Wardrobe(AssetFolder(assets))
    body = shaped_vertices(base, random_shape(np.random.default_rng(seed)))
    for name in ("male_worksuit01", "female_sportsuit01", "shoes01"):
        clothes = fitted_vertices(wardrobe("clothes", name), body)[::7]
        gaps = np.linalg.norm(clothes[:, None] - body[None, :13380:2], axis=-1).min(1)
        assert np.percentile(gaps, 95) < 0.7, name  # 7 cm
        assert gaps.max() < 2.5, name


def test_captured_poses_are_turns_of_the_rig_and_mirror_twice_to_themselves(assets, base):
    poses = captured_poses(AssetFolder(assets), base.rig)
    assert poses.shape[1:] == (len(base.rig.names), 3)
    assert np.abs(poses).max() > 0.5
    np.testing.assert_allclose(mirrored(mirrored(poses, base.rig), base.rig), poses)


def test_forearm_through_the_trunk_is_impossible(base):
    rig = base.rig
    heads = rig.head_positions(base.mesh.vertices)
    turns = np.tile(np.eye(3), (2, len(rig.names), 1, 1))
    arm = heads[rig.number("wrist.L")] - heads[rig.number("upperarm01.L")]
    inward = np.arctan2(arm[1], arm[0])
    turns[1, rig.number("upperarm01.L")] = axis_rotation("z", np.pi - inward)  # across, through the chest
    moved = posed_bones(rig, heads, turns)[1]
    np.testing.assert_array_equal(possible_poses(rig, moved), [True, False])


def test_characters_depend_on_the_seed_alone(assets, cast):
    from posesdk_training.synthetic.cast import Cast

    again = Cast(AssetFolder(assets), seed=5, size=3, poses=60)
    np.testing.assert_array_equal(again[2].vertices["position"], cast[2].vertices["position"])
    np.testing.assert_array_equal(again.library.turns, cast.library.turns)


def test_coarse_meshes_are_smaller_and_use_the_same_vertices(cast):
    character = cast[0]
    counts = [len(triangles) for triangles in character.triangles]
    assert counts[0] > 2 * counts[1] > 2 * counts[2] > 0
    assert max(int(triangles.max()) for triangles in character.triangles) < len(character.vertices)
