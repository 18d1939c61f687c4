"""The same keypoints from torch, ONNX Runtime and OpenVINO on photos, whatever rounding may decide."""

import cv2
import numpy as np
import pytest

from posesdk.bundle import default_bundle_path, open_bundle
from posesdk.pipeline import open_pipeline
from posesdk.variants import select_variant

PHOTOS = 50
PEOPLE = 10
TOLERANCE_PX = 0.05
FRACTION = 0.999


@pytest.fixture(scope="module")
def photos(shared):
    paths = sorted(shared("data", "coco_eval", "images").glob("*.jpg"))[:PHOTOS]
    assert len(paths) == PHOTOS
    return [cv2.imread(str(path)) for path in paths]


@pytest.fixture(scope="module")
def default_bundle():
    return open_bundle(default_bundle_path())


def backends(bundle):
    """Pipelines by runtime, without the suppression, so that every pose is compared."""
    pytest.importorskip("openvino", reason="parity is that of OpenVINO, too")
    decode = bundle.spec.decode.model_copy(update={"nms_distance": 0.0, "max_people": PEOPLE})
    found = {candidate.runtime: candidate for candidate in select_variant(bundle.manifest, device="cpu")}
    assert found.keys() == {"onnxruntime", "openvino"}
    return {runtime: open_pipeline(bundle, candidate, decode) for runtime, candidate in found.items()}


def share_within(pipeline, photos, wanted):
    from posesdk_converters.verification.parity import pose_distances

    found = [pipeline.run(photo) for photo in photos]
    distances = np.concatenate([pose_distances(*pair)[0] for pair in zip(found, wanted, strict=True)])
    assert distances.size > 17 * PHOTOS
    return (distances <= TOLERANCE_PX).mean()


def test_backends_give_the_keypoints_of_torch(photos, converted_bundle, tiny_checkpoint):
    from posesdk_training.checkpoint import load_model
    from posesdk_training.torch_runtime import torch_pipeline

    pipelines = backends(open_bundle(converted_bundle))
    torch = torch_pipeline(load_model(tiny_checkpoint), pipelines["openvino"].spec)
    wanted = [torch.run(photo) for photo in photos]
    for runtime, pipeline in pipelines.items():
        assert share_within(pipeline, photos, wanted) >= FRACTION, runtime


def test_backends_give_the_same_keypoints_with_the_default_model(photos, default_bundle):
    pipelines = backends(default_bundle)
    wanted = [pipelines["onnxruntime"].run(photo) for photo in photos]
    assert share_within(pipelines["openvino"], photos, wanted) >= FRACTION
