"""The element runs what the detector runs: every backend and variant, and its poses are the detector's."""

import json

import numpy as np
import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

CASES = [
    ("converted_bundle", "onnxruntime", "fp32"),
    ("converted_bundle", "openvino", "fp32"),
    ("dual_bundle", "openvino", "fp32"),
    ("dac_bundle", "onnxruntime", "fp32"),
    ("dac_bundle", "openvino", "fp32"),
    ("mobile_bundle", "tflite", "fp32"),
    ("mobile_bundle", "tflite", "int8"),
]


@pytest.mark.parametrize(("bundle", "runtime", "precision"), CASES)
def test_poses_on_buffers_are_those_of_the_detector_with_that_runtime(
    bundle, runtime, precision, request, playing, picture
):
    from posesdk import Detector
    from posesdk.gst.meta import poses_from_buffer

    path = request.getfixturevalue(bundle)
    pad = playing(model=str(path), runtime=runtime, precision=precision, format="BGR", mode="sync")
    frames = [picture(seed) for seed in range(3)]
    for index, frame in enumerate(frames):
        pad.push(frame, index * 33_000_000)
    found = [poses_from_buffer(buffer) for buffer in pad.buffers]
    with Detector(path, runtime=runtime, precision=precision, threads=1) as detector:
        expected = [detector(frame) for frame in frames]
        used = detector.info
    assert sum(map(len, expected)) > 0
    for poses, wanted in zip(found, expected, strict=True):
        assert poses.keypoints.shape == wanted.keypoints.shape
        np.testing.assert_allclose(poses.keypoints, wanted.keypoints, atol=1e-3)
        np.testing.assert_array_equal(poses.scores, wanted.scores)
    stats = json.loads(pad.element.get_property("stats"))
    assert (stats["runtime"], stats["variant"], stats["inferred"]) == (used.runtime, used.variant, 3)


@pytest.mark.parametrize("named", ["", "default"])
def test_with_no_model_named_the_default_one_runs_as_under_its_name(playing, picture, named):
    from posesdk import Detector

    pad = playing(model=named, runtime="auto", format="BGR", mode="sync")
    pad.push(picture(0), 0)
    with Detector() as detector:
        assert json.loads(pad.element.get_property("stats"))["model"] == detector.info.model
    assert len(pad.buffers) == 1


def test_options_choose_a_variant_and_the_flip_test(converted_bundle, playing, picture):
    from posesdk import Detector
    from posesdk.bundle import open_bundle
    from posesdk.gst.bindings import Gst
    from posesdk.gst.meta import poses_from_buffer

    variant = open_bundle(converted_bundle).manifest.variants[0].name
    options = f"variant={variant}, flip-test=yes"
    pad = playing(model=str(converted_bundle), runtime="auto", format="BGR", mode="sync", options=options)
    flow = pad.push(picture(0), 0)
    assert flow == Gst.FlowReturn.OK, [str(message.parse_error()) for message in pad.messages(Gst.MessageType.ERROR)]
    (poses,) = map(poses_from_buffer, pad.buffers)
    with Detector(converted_bundle, variant=variant, flip_test=True, threads=1) as detector:
        expected = detector(picture(0))
    np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-3)
    assert json.loads(pad.element.get_property("stats"))["variant"] == variant
