import numpy as np

from posesdk_training.synthetic.visibility import keypoint_visibility


def test_keypoint_is_seen_hidden_or_outside():
    ids = np.zeros((40, 40), dtype=np.uint8)
    depths = np.zeros((40, 40), dtype=np.float32)
    ids[5:35, 5:35], depths[5:35, 5:35] = 1, 30.0
    ids[20:35, 5:35], depths[20:35, 5:35] = 2, 20.0  # somebody else before the lower half
    pixels = np.full((17, 2), 12.0)
    pixels[5] = (12, 30)  # behind the other one
    pixels[6] = (2, 2)  # hidden by something that is no person
    pixels[7] = (50, 12)
    along = np.full(17, 30.5)
    along[8] = 33.0  # the person's own body is far before it
    along[9] = -3.0  # behind the camera
    visibility = keypoint_visibility(pixels, along, ids, depths, person=1)
    assert visibility[5:10].tolist() == [1, 1, 0, 1, 0]
    assert (visibility[10:] == 2).all()


def test_point_of_the_face_behind_the_own_head_is_unlabelled():
    ids = np.ones((20, 20), dtype=np.uint8)
    depths = np.full((20, 20), 30.0, dtype=np.float32)
    along = np.array([31.5, 30.3, *[30.0] * 15])
    visibility = keypoint_visibility(np.full((17, 2), 9.0), along, ids, depths, person=1)
    assert visibility[:2].tolist() == [0, 2]
