"""The same keypoints from torch, ONNX Runtime, OpenVINO and LiteRT on photos, whatever rounding may decide."""

from importlib.util import find_spec

import cv2
import numpy as np
import pytest

from posesdk.bundle import models_folder, open_bundle
from posesdk.methods import method_of
from posesdk.pipeline import Pipeline, open_pipeline, settled
from posesdk.shipped import BUNDLE_SUFFIX, CHECKPOINT_SUFFIX
from posesdk.variants import select_variant
from posesdk_runtimes.registry import open_runtime

PHOTOS = 50
DAC_PHOTOS = 20
PEOPLE = 10
TOLERANCE_PX = 0.05
FRACTION = 0.999
FLIPPED = 0.02
"""Part of the photos in which rounding may decide for one person more or less: where a similarity or a score is at its
threshold, or two centers are equal. Measured: 0, with DAC half trained and with random weights."""
SQUARE = (320, 320)
"""Input of LiteRT's graphs, which are made for one size."""
SHIPPED = sorted(
    path for path in models_folder().glob(f"*{BUNDLE_SUFFIX}") if path.with_suffix(CHECKPOINT_SUFFIX).exists()
)
GRAPHS = [("onnxruntime", "onnx"), ("openvino", "onnx"), ("tflite", "tflite")]


@pytest.fixture(scope="module")
def photos(shared):
    paths = sorted(shared("data", "coco_eval", "images").glob("*.jpg"))[:PHOTOS]
    assert len(paths) == PHOTOS
    return [cv2.imread(str(path)) for path in paths]


def compared(spec):
    """Decode settings without the suppression, so that every pose is compared."""
    return spec.decode.model_copy(update={"nms_distance": 0.0, "max_people": PEOPLE})


def backends(bundle):
    """Pipelines by runtime."""
    pytest.importorskip("openvino", reason="parity is that of OpenVINO, too")
    decode = compared(bundle.spec)
    found = {candidate.runtime: candidate for candidate in select_variant(bundle.manifest, device="cpu")}
    assert found.keys() == {"onnxruntime", "openvino"}
    return {runtime: open_pipeline(bundle, candidate, decode) for runtime, candidate in found.items()}


def assert_same_persons(pipeline, photos, wanted):
    """Each wanted pose has a found one whose keypoints are its own, and there are as many."""
    from posesdk_converters.verification.parity import pose_distances

    found = [pipeline.run(photo) for photo in photos]
    distances = np.concatenate([pose_distances(*pair)[0] for pair in zip(found, wanted, strict=True)])
    assert distances.size > 17 * len(photos)
    assert (distances <= TOLERANCE_PX).mean() >= FRACTION
    flipped = [len(one.scores) != len(other.scores) for one, other in zip(found, wanted, strict=True)]
    assert np.mean(flipped) <= FLIPPED


def test_backends_give_the_keypoints_of_torch(photos, converted_bundle, tiny_checkpoint):
    from posesdk_training.checkpoint import load_model
    from posesdk_training.torch_runtime import torch_pipeline

    pipelines = backends(open_bundle(converted_bundle))
    torch = torch_pipeline(load_model(tiny_checkpoint), pipelines["openvino"].spec)
    wanted = [torch.run(photo) for photo in photos]
    for pipeline in pipelines.values():
        assert_same_persons(pipeline, photos, wanted)


def write_tflite(model, folder):
    """The graphs of a model for LiteRT, with an input of SQUARE, where the converter is installed."""
    if find_spec("litert_torch") is None:
        return
    from posesdk_converters.tflite.convert import convert_adapt, convert_trunk

    (folder / "trunk.tflite").write_bytes(convert_trunk(model, SQUARE))
    if method_of(model.spec).needs_adapt(model.spec):
        (folder / "adapt.tflite").write_bytes(convert_adapt(model))


def open_graphs(spec, folder, runtime, suffix):
    """The pipeline of the graphs in a folder."""
    if not (folder / f"trunk.{suffix}").exists():
        pytest.skip("LiteRT needs the [convert-mobile] extra")
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime", reason="parity is that of both")
    trunk = open_runtime(folder / f"trunk.{suffix}", runtime=runtime)
    adapt = folder / f"adapt.{suffix}"
    return Pipeline(spec, trunk, open_runtime(adapt, runtime=runtime) if adapt.exists() else None)


class Shipped:
    """A model that comes with the package: its checkpoint in torch, its bundle, and graphs for LiteRT in a folder."""

    def __init__(self, path, photos, folder):
        from posesdk_training.checkpoint import load_model

        self.bundle, self.model = open_bundle(path), load_model(path.with_suffix(CHECKPOINT_SUFFIX))
        self.photos, self.folder = photos, folder
        self._wanted = {}
        write_tflite(self.model, folder)

    def pipeline(self, runtime):
        decode = compared(self.bundle.spec)
        if runtime == "tflite":
            return open_graphs(settled(self.bundle.spec, decode, SQUARE), self.folder, runtime, "tflite")
        return open_pipeline(self.bundle, select_variant(self.bundle.manifest, runtime, "cpu", "fp32")[0], decode)

    def wanted(self, spec):
        """What torch finds in the photos with that specification's input."""
        from posesdk_training.torch_runtime import torch_pipeline

        if spec.input not in self._wanted:
            torch = torch_pipeline(self.model, spec)
            self._wanted[spec.input] = [torch.run(photo) for photo in self.photos]
        return self._wanted[spec.input]


@pytest.fixture(scope="module", params=SHIPPED, ids=lambda path: path.stem)
def shipped(request, photos, tmp_path_factory):
    pytest.importorskip("torch", reason="parity is that with torch")
    return Shipped(request.param, photos, tmp_path_factory.mktemp(request.param.stem))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tflite"])
def test_backends_give_the_keypoints_of_torch_with_every_shipped_model(shipped, photos, runtime):
    pytest.importorskip("openvino" if runtime == "openvino" else "onnxruntime", reason="parity is that of both")
    pipeline = shipped.pipeline(runtime)
    assert_same_persons(pipeline, photos, shipped.wanted(pipeline.spec))


@pytest.fixture(scope="module")
def dac_nano(random_model):
    """DAC of the size that is shipped, with random weights, on the square input that LiteRT takes."""
    pytest.importorskip("torch", reason="the model is built in torch")
    from posesdk_training.models.build import dac_nano_spec

    spec = dac_nano_spec()
    decode = spec.decode.model_copy(update={"center_threshold": 0.8})  # else the most people are found in all photos
    return random_model(settled(spec, decode, SQUARE))


@pytest.fixture(scope="module")
def dac_files(dac_nano, tmp_path_factory):
    """A folder with the graphs of the model in ONNX, and in TFLite where its converter is installed."""
    pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")
    from posesdk_converters.portable import export_portable

    folder = tmp_path_factory.mktemp("dac-nano")
    export_portable(dac_nano, folder)
    write_tflite(dac_nano, folder / "portable")
    return folder / "portable"


@pytest.mark.parametrize(("runtime", "suffix"), GRAPHS)
def test_backends_give_the_persons_of_torch_with_dual_centers(photos, dac_nano, dac_files, runtime, suffix):
    from posesdk_training.torch_runtime import torch_pipeline

    pipeline = open_graphs(dac_nano.spec, dac_files, runtime, suffix)
    torch = torch_pipeline(dac_nano)
    wanted = [torch.run(photo) for photo in photos[:DAC_PHOTOS]]
    assert len({len(one.scores) for one in wanted}) > 5
    assert_same_persons(pipeline, photos[:DAC_PHOTOS], wanted)
