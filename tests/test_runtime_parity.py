"""The same keypoints from torch, ONNX Runtime, OpenVINO and LiteRT on photos, whatever rounding may decide."""

from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from posesdk.bundle import default_bundle_path, open_bundle
from posesdk.pipeline import open_pipeline
from posesdk.variants import select_variant

PHOTOS = 50
DAC_PHOTOS = 20
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
    assert distances.size > 17 * len(photos)
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


@pytest.fixture(scope="module")
def dac_nano(random_model):
    """DAC of the size that is shipped, with random weights, on the square input that LiteRT takes."""
    pytest.importorskip("torch", reason="the model is built in torch")
    from posesdk.pipeline import settled
    from posesdk_training.models.build import dac_nano_spec

    spec = dac_nano_spec()
    decode = spec.decode.model_copy(update={"center_threshold": 0.8})  # else the most people are found in all photos
    return random_model(settled(spec, decode, (320, 320)))


@pytest.fixture(scope="module")
def dac_files(dac_nano, tmp_path_factory):
    """A folder with the graphs of the model in ONNX, and in TFLite where its converter is installed."""
    pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")
    from posesdk_converters.portable import export_portable

    folder = tmp_path_factory.mktemp("dac-nano")
    export_portable(dac_nano, folder)
    if find_spec("litert_torch") is not None:
        from posesdk_converters.tflite.convert import convert_adapt, convert_trunk

        (folder / "portable" / "trunk.tflite").write_bytes(convert_trunk(dac_nano, (320, 320)))
        (folder / "portable" / "adapt.tflite").write_bytes(convert_adapt(dac_nano))
    return folder / "portable"


@pytest.mark.parametrize(("runtime", "suffix"), [("onnxruntime", "onnx"), ("openvino", "onnx"), ("tflite", "tflite")])
def test_backends_give_the_persons_of_torch_with_dual_centers(photos, dac_nano, dac_files, runtime, suffix):
    from posesdk.pipeline import Pipeline
    from posesdk_runtimes.registry import open_runtime
    from posesdk_training.torch_runtime import torch_pipeline

    if not (dac_files / f"trunk.{suffix}").exists():
        pytest.skip("LiteRT needs the [convert-mobile] extra")
    torch = torch_pipeline(dac_nano)
    wanted = [torch.run(photo) for photo in photos[:DAC_PHOTOS]]
    graphs = (open_runtime(dac_files / f"{name}.{suffix}", runtime=runtime) for name in ("trunk", "adapt"))
    pipeline = Pipeline(dac_nano.spec, *graphs)
    assert share_within(pipeline, photos[:DAC_PHOTOS], wanted) >= FRACTION
    counts = [len(one.scores) for one in wanted]
    assert len(set(counts)) > 5
    assert [len(pipeline.run(photo).scores) for photo in photos[:DAC_PHOTOS]] == counts
