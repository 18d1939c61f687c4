"""The published arithmetic that benchmarks compare with gives the published poses, and those of the product."""

import cv2
import numpy as np
import pytest

from posesdk.preprocess import make_letterbox
from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec

torch = pytest.importorskip("torch", reason="the published arithmetic is compared in torch")

from posesdk_training.models.build import build_model  # noqa: E402
from posesdk_training.torch_runtime import torch_pipeline  # noqa: E402
from published.estimator import PublishedEstimator  # noqa: E402
from published.preprocess import make_warp  # noqa: E402
from published.suppression import suppress  # noqa: E402

WINDOWS = {
    "tiny_A_default_decoder": {"global_size": 97, "reweigh_sigma": 16.0},
    "tiny_B_small_global": {"global_size": 17, "reweigh_sigma": 2.5},
}
NEAR = 1e-3
"""px"""


def _tiny(weights, *, flip=True, **window):
    spec = ModelSpec(
        name="tiny",
        frame="published",
        input=InputSpec(side=64),
        backbone=HRNetSpec(channels=(4, 8, 16, 32), modules=(1, 1, 1), blocks=(1, 1, 1)),
        heads=HeadSpec(heatmap_channels=8, offset_channels=16, embedding=4),
        decode=DecodeSpec(flip_test=flip),
        adaptation=AdaptationSpec(message_channels=(16, 12, 8), affine_pairs=5, **window),
    )
    model = build_model(spec).eval()
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    model.load_state_dict({key: value.float() if value.is_floating_point() else value for key, value in state.items()})
    return model


@pytest.mark.parametrize("name", WINDOWS)
def test_poses_of_the_published_implementation(name, reference):
    arrays, model = reference(name), _tiny(reference("tiny_weights_fp16"), **WINDOWS[name])
    found = PublishedEstimator(model).find(torch.from_numpy(arrays["input"])).numpy()
    expected = arrays["final_poses_all"]
    assert len(expected) == 4
    np.testing.assert_allclose(found[..., :2], expected[..., :2], rtol=0, atol=NEAR)
    np.testing.assert_allclose(found[..., 2], expected[..., 2], rtol=1e-4, atol=1e-6)


def test_without_a_center_above_the_threshold_the_best_one_is_refined(reference):
    arrays, weights = reference("tiny_C_fallback"), reference("tiny_weights_fp16")
    model = _tiny(weights | {"final_layer_cls.bias": arrays["final_layer_cls_bias"]}, **WINDOWS["tiny_B_small_global"])
    found = PublishedEstimator(model).find(torch.from_numpy(arrays["input"])).numpy()
    np.testing.assert_allclose(found[..., :2], arrays["final_poses_all"][..., :2], rtol=0, atol=NEAR)


def test_poses_of_the_picture(reference):
    """The product's poses, for the recorded ones come from the interpolation of another OpenCV."""
    arrays = reference("tiny_A_default_decoder")
    model = _tiny(reference("tiny_weights_fp16"), **WINDOWS["tiny_A_default_decoder"])
    # At the size of the input the interpolation of every OpenCV gives the picture itself.
    image = cv2.resize(arrays["image_bgr_u8"], (128, 64))
    found, expected = PublishedEstimator(model).run(image), torch_pipeline(model).run(image)
    assert len(expected.scores) >= 2
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, rtol=0, atol=NEAR)


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (427, 640), (719, 1281), (100, 300)])
def test_geometry(size):
    spec, warp = InputSpec(side=512), make_warp(size, 512)
    letterbox = make_letterbox(size, spec, "published")
    assert warp.size == letterbox.net_size[::-1]
    points = np.float32([[0, 0], [31.5, 7], [600, 511]])
    np.testing.assert_allclose(warp.to_picture(points), letterbox.to_image(points), rtol=0, atol=1e-4)


def test_input_is_that_of_the_installed_opencv(reference):
    arrays = reference("preprocess_warp")
    image = np.ascontiguousarray(arrays["rgb_u8"][..., ::-1])
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    found = make_warp(image.shape[:2], 64).input_of(image)[0].permute(1, 2, 0).numpy()
    levels = np.rint((found * std + mean) * 255)
    name = "warp_opencv_5_0_0" if cv2.__version__.startswith("5") else "warp_opencv_4_5_5"
    np.testing.assert_array_equal(levels, arrays[name])


def test_suppression(reference):
    arrays = reference("nms")
    assert suppress(arrays["poses"], arrays["scores"]) == arrays["keep"].tolist()
