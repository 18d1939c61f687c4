import numpy as np
import pytest

from posesdk_training.synthetic.camera import Camera
from posesdk_training.synthetic.lights import random_lights
from posesdk_training.synthetic.materials import random_materials
from posesdk_training.synthetic.scene import Scene, hung_person
from posesdk_training.synthetic.visibility import annotated

CAMERA = Camera(np.eye(3), 200.0, 160, 160)
UPRIGHT = np.eye(3)


def person(cast, number, pelvis):
    turns = np.tile(np.eye(3), (len(cast.rig.names), 1, 1))
    return hung_person(cast, CAMERA, number, turns, facing=UPRIGHT, pelvis=np.array(pelvis))


@pytest.fixture
def draw(renderer):
    def drawing(*people):
        rng = np.random.default_rng(0)
        scene = Scene(CAMERA, tuple(people), np.array([0.0, 1.0, 0.0, -10.0]))
        return scene, renderer.draw(scene, random_lights(rng, CAMERA), [random_materials(rng) for _ in people])

    return drawing


def test_drawn_person_is_where_its_skinned_vertices_project(cast, draw):
    scene, drawing = draw(person(cast, 0, [0.0, 0.0, -30.0]))
    character = cast[0]
    vertices = character.vertices[np.unique(character.triangles[1])]
    matrices = scene.people[0].matrices
    points = np.concatenate([vertices["position"], np.ones((len(vertices), 1))], axis=1)
    moved = sum(
        vertices["shares"][:, k, None] * np.einsum("vij,vj->vi", matrices[vertices["bones"][:, k]], points)
        for k in range(4)
    )
    pixels = CAMERA.project(moved[:, :3])[0]
    rows, columns = np.nonzero(drawing.ids == 1)
    np.testing.assert_allclose([columns.min(), rows.min()], pixels.min(0), atol=1.5)
    np.testing.assert_allclose([columns.max(), rows.max()], pixels.max(0), atol=1.5)


def test_depths_are_those_of_the_body(cast, draw):
    scene, drawing = draw(person(cast, 0, [0.0, 0.0, -30.0]))
    nose = scene.people[0].keypoints[0]
    column, row = np.round(CAMERA.project(nose)[0]).astype(int)
    assert drawing.depths[row, column] == pytest.approx(-nose[2], abs=0.3)


def test_person_in_front_hides_keypoints_of_the_one_behind(cast, draw):
    behind = person(cast, 0, [0.0, 0.0, -34.0])
    scene, drawing = draw(behind, person(cast, 1, [1.5, -1.0, -26.0]))
    found = annotated(scene, drawing.ids, drawing.depths)
    alone_scene, alone_drawing = draw(behind)
    alone = annotated(alone_scene, alone_drawing.ids, alone_drawing.depths)
    visible, visible_alone = found[0].keypoints[:, 2], alone[0].keypoints[:, 2]
    assert (visible == 1).sum() > (visible_alone == 1).sum()
    for (x, y, v), before in zip(found[0].keypoints, visible_alone, strict=True):
        column, row = round(x), round(y)
        near = drawing.ids[row - 1 : row + 2, column - 1 : column + 2]
        if before == 2 and (near == 2).all():
            assert v == 1
        if v == 2:
            assert (near == 1).any()
    assert found[0].area == (drawing.ids == 1).sum() < alone[0].area


def test_box_and_mask_belong_together(cast, draw):
    scene, drawing = draw(person(cast, 2, [3.0, 0.0, -40.0]))
    (found,) = annotated(scene, drawing.ids, drawing.depths)
    x, y, width, height = found.box
    outside = found.mask.copy()
    outside[y : y + height, x : x + width] = False
    assert not outside.any()
    assert found.mask[y].any()
    assert found.mask[:, x + width - 1].any()
