import zipfile

import numpy as np
import onnx
import pytest
import torch

from posesdk.adapt import adapt_poses
from posesdk.bundle import build_manifest_files, open_bundle, write_manifest
from posesdk.context import local_context
from posesdk.decode import average_flip, decode_center_offset
from posesdk.detector import Detector
from posesdk.pipeline import open_pipeline
from posesdk.responses import convolve_windows
from posesdk.selftest import run_selftest
from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, HeadSpec, ModelSpec
from posesdk.variants import Candidate
from posesdk.windows import reweighing_window, sample_windows
from posesdk_converters.nvidia.fused import compare_fused, export_fused, variant_of_fused
from posesdk_converters.nvidia.fused_graph import Fused
from posesdk_converters.target import Conversion, portable_variant
from posesdk_runtimes.engines.recipe import GraphRecipe, read_recipe
from posesdk_runtimes.errors import GateError
from posesdk_runtimes.registry import open_runtime
from posesdk_training.checkpoint import load_model
from posesdk_training.evaluated_model import open_model
from posesdk_training.models.build import build_model

HEIGHT, WIDTH = 24, 40
PEOPLE = 9
TIE = 2e-6
"""Peaks closer than this are one within float32 noise: either place is right."""
SIZE = (96, 96)
"""What the model makes of `tiny_picture` when its input is free, too."""
TENSORRT_READS = {
    *("Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Conv", "Div", "Equal"),
    *(
        "Expand",
        "Floor",
        "Gather",
        "Greater",
        "GreaterOrEqual",
        "HardSigmoid",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
    ),
    *("Pow", "Range", "Reciprocal", "Relu", "Reshape", "Resize", "Shape", "Sigmoid", "Slice", "Sqrt", "Squeeze", "Sub"),
    *("TopK", "Transpose", "Unsqueeze", "Where"),
}
"""Operators in onnx-tensorrt's list for TensorRT 8.6 to 10."""


class FixedMaps(torch.nn.Module):
    """Stands where the trunk stands."""

    def __init__(self, heatmaps, offsets, embedding):
        super().__init__()
        self.maps = tuple(torch.from_numpy(np.ascontiguousarray(maps)) for maps in (heatmaps, offsets, embedding))

    def forward(self, image):
        return self.maps


def model_with(frame="consistent", flip_test=False, **adaptation):
    torch.manual_seed(0)
    spec = ModelSpec(
        name="tiny",
        frame=frame,
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=3),
        decode=DecodeSpec(max_people=PEOPLE, center_threshold=0.5, flip_test=flip_test),
        adaptation=AdaptationSpec(
            **{"local_size": 7, "global_size": 31, "message_channels": (8, 8, 8), "affine_pairs": 2, **adaptation}
        ),
    )
    model = build_model(spec).eval()
    with torch.no_grad():
        model.joints_mlp[-1].weight.normal_()
        model.joints_mlp[-1].bias.fill_(0.3)
    return model


def random_maps(seed, images=1):
    """Random maps whose offsets put windows over and beyond every border."""
    rng = np.random.default_rng(seed)
    heatmaps = rng.normal(size=(images, 18, HEIGHT, WIDTH)).astype(np.float32)
    heatmaps[:, 17] *= np.pad(np.ones((HEIGHT - 2, WIDTH - 2), np.float32), 1)
    offsets = rng.normal(size=(images, 34, HEIGHT, WIDTH)).astype(np.float32) * 12
    return heatmaps, offsets, rng.normal(size=(images, HEIGHT, WIDTH, 3)).astype(np.float32)


def run_fused(model, maps, people=PEOPLE):
    fused = Fused(model, people)
    fused.trunk = FixedMaps(*maps)
    with torch.inference_mode():
        outputs = fused(torch.zeros(1, 4 * HEIGHT, 4 * WIDTH, 3, dtype=torch.uint8))
    return [value.numpy() for value in outputs]


def decode_on_the_device(model, maps):
    """Initial poses, keypoints, scores by numpy, and which keypoints have one best place; `adapt` alone is torch."""
    spec = model.spec
    heatmaps, offsets = average_flip(*maps[:2], spec.skeleton) if spec.decode.flip_test else (maps[0][0], maps[1][0])
    initial = decode_center_offset(heatmaps, offsets, spec)
    with torch.inference_mode():
        context = local_context(initial.keypoints, maps[2][0], spec)
        attraction = model.joints_mlp(torch.from_numpy(context)).numpy()
    keypoints, scores = adapt_poses(initial, heatmaps, attraction, spec)
    windows = sample_windows(initial.keypoints, heatmaps, spec.adaptation.global_size, spec.frame)
    clamped = attraction.clip(0, 1)
    responses = convolve_windows(windows * reweighing_window(spec.adaptation), clamped)
    top = np.sort(responses.reshape(*responses.shape[:2], -1), axis=-1)[..., -3:]
    return initial, keypoints, scores, clamped.any(axis=(2, 3)) & (np.diff(top).min(axis=-1) > TIE)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"flip_test": True},
        {"prior": "kam"},
        {"reweigh_sigma": None},
        {"local_size": 11, "global_size": 97},
        {"message_channels": (), "local_size": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("seed", [0, 1])
def test_fused_graph_gives_the_poses_of_the_device_side_decoder(settings, seed):
    model = model_with(**settings)
    maps = random_maps(seed, images=2 if model.spec.decode.flip_test else 1)
    initial, wanted, wanted_scores, clear = decode_on_the_device(model, maps)
    keypoints, scores, centers = run_fused(model, maps)
    assert len(initial) == PEOPLE
    assert clear.mean() > 0.3
    np.testing.assert_allclose(centers, initial.scores, rtol=0, atol=1e-6)
    np.testing.assert_allclose(keypoints[clear], wanted[clear], rtol=0, atol=1e-4)
    np.testing.assert_allclose(scores, wanted_scores, rtol=0, atol=1e-5)


def test_places_without_a_candidate_have_center_score_0():
    model, maps = model_with(), random_maps(0)
    maps[0][:, 17] = np.minimum(maps[0][:, 17], 0.1)
    maps[0][0, 17, 5, 7], maps[0][0, 17, 15, 30] = 4, 3
    initial, wanted, _, clear = decode_on_the_device(model, maps)
    keypoints, _, centers = run_fused(model, maps)
    assert len(initial) == 2
    np.testing.assert_allclose(centers, [*initial.scores, *[0] * (PEOPLE - 2)], atol=1e-6)
    assert np.isfinite(keypoints).all()
    np.testing.assert_allclose(keypoints[:2][clear], wanted[clear], rtol=0, atol=1e-4)


def test_highest_pixel_stands_in_where_no_center_is_high_enough():
    model, maps = model_with(), random_maps(0)
    maps[0][:, 17] = -1
    maps[0][0, 17, 0, 9] = 0.3  # on the border, where no maximum counts
    initial, wanted, _, clear = decode_on_the_device(model, maps)
    keypoints, _, centers = run_fused(model, maps)
    assert len(initial) == 1
    np.testing.assert_allclose(centers, [initial.scores[0], *[0] * (PEOPLE - 1)], atol=1e-6)
    np.testing.assert_allclose(keypoints[:1][clear], wanted[clear], rtol=0, atol=1e-4)


def test_map_without_a_positive_center_has_no_candidate():
    maps = random_maps(0)
    maps[0][:, 17] = -1
    assert not run_fused(model_with(), maps)[2].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"frame": "published"}, "frame 'published'"), ({"level": "partial"}, "'partial'"), ({"prior": "kem"}, "'kem'")],
)
def test_model_with_another_decoder_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Fused(model_with(**settings), PEOPLE)


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return load_model(tiny_checkpoint).eval()


@pytest.fixture(scope="module")
def free(model, tmp_path_factory):
    """The fused graph of free size, and how it compares."""
    path = tmp_path_factory.mktemp("free") / "fused.onnx"
    return path, export_fused(model, path)


@pytest.fixture(scope="module")
def bundle(model, converted_bundle, tmp_path_factory):
    """`converted_bundle` as a folder, with a fused fp16 variant of fixed size."""
    folder = tmp_path_factory.mktemp("fused") / "bundle"
    with zipfile.ZipFile(converted_bundle) as archive:
        archive.extractall(folder)
    conversion = Conversion(folder, portable_variant(adapt=True, input_size=SIZE), model)
    variant = variant_of_fused(conversion, "fp16", target="cuda", opset=17, workspace_mib=64)
    manifest = open_bundle(converted_bundle).manifest
    changes = {"variants": (*manifest.variants, variant), "files": build_manifest_files(folder)}
    write_manifest(folder, manifest.model_copy(update=changes))
    return folder, variant


def test_exported_graph_finds_the_poses_of_the_torch_model_at_sizes_it_was_not_exported_at(free):
    assert free[1].keypoints > 300
    assert free[1].within >= 0.999
    assert free[1].max_score < 1e-5


def test_exported_graph_equals_its_torch_module(model, free):
    image = np.random.default_rng(0).integers(0, 256, (1, 96, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        wanted = Fused(model, 30)(torch.from_numpy(image))
    runtime = open_runtime(free[0], runtime="onnxruntime")
    found = runtime.run({"image": image})
    runtime.close()
    assert [found[name].shape for name in ("keypoints", "keypoint_scores", "center_scores")] == [
        (30, 17, 2),
        (30, 17),
        (30,),
    ]
    taken = wanted[2].numpy() > 0
    assert taken.sum() > 10
    np.testing.assert_allclose(found["center_scores"][taken], wanted[2].numpy()[taken], atol=1e-5)
    np.testing.assert_allclose(found["keypoint_scores"][taken], wanted[1].numpy()[taken], atol=1e-5)
    distance = np.linalg.norm(found["keypoints"] - wanted[0].numpy(), axis=-1)[taken]
    assert np.mean(distance < 1e-3) > 0.98


def test_graph_of_another_model_does_not_pass(model, free, bundle):
    other = load_other(model)
    with pytest.raises(GateError, match="keypoints are within"):
        compare_fused(other, free[0], people=30)
    with pytest.raises(GateError, match="in float16"):
        compare_fused(other, bundle[0] / bundle[1].trunk, people=30, input_size=SIZE, half=True)


def load_other(model):
    other = build_model(model.spec).eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    state["joints_mlp.9.bias"] = state["joints_mlp.9.bias"] + torch.linspace(-0.5, 0.5, 17)
    state["final_layer_reg.bias"] = state["final_layer_reg.bias"] + 0.3
    other.load_state_dict(state)
    return other


def test_graph_holds_only_what_tensorrt_reads(free, bundle):
    for path in (free[0], bundle[0] / bundle[1].trunk):
        graph = onnx.load(path).graph
        assert {node.op_type for node in graph.node} <= TENSORRT_READS
        assert {node.op_type for node in graph.node if "image" in node.input} == {"Cast"}


def test_half_leaves_the_last_layers_and_the_attraction_maps_in_float32(bundle):
    graph = onnx.load(bundle[0] / bundle[1].trunk).graph
    halves = {value.name for value in graph.initializer if value.data_type == onnx.TensorProto.FLOAT16}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    exact = [node for node in convolutions if node.input[1] not in halves]
    assert {node.input[1] for node in exact if node.input[1].startswith("trunk.")} == {
        "trunk.model.final_layer_cls.weight",
        "trunk.model.final_layer_reg.weight",
    }
    assert "adapt.joints_mlp.9.weight" in {node.input[1] for node in exact}
    groups = [attribute.i for node in exact for attribute in node.attribute if attribute.name == "group"]
    assert 30 * 17 in groups
    assert len(convolutions) - len(exact) > 20


def test_variant_says_what_it_is(bundle):
    folder, variant = bundle
    assert (variant.name, variant.graphs, variant.adapt, variant.input_size) == ("cuda-fp16-fused", "fused", None, SIZE)
    assert (variant.runtime, variant.devices) == (("tensorrt", "onnxruntime"), ("cuda",))
    assert onnx.load(folder / variant.trunk).opset_import[0].version == 17
    assert read_recipe(folder / variant.trunk) == GraphRecipe(workspace_mib=64)


def test_no_fused_variant_in_int8(model, tmp_path):
    conversion = Conversion(tmp_path, portable_variant(adapt=True, input_size=SIZE), model)
    with pytest.raises(ValueError, match="fp32 and fp16, not in int8"):
        variant_of_fused(conversion, "int8", target="cuda", opset=18, workspace_mib=64)


def test_self_test_detector_and_evaluation_take_a_fused_variant(bundle, tiny_picture):
    folder, variant = bundle
    manifest = open_bundle(folder).manifest
    loose = variant.model_copy(update={"runtime": ("onnxruntime",), "devices": ("cpu",)})
    write_manifest(folder, manifest.model_copy(update={"variants": (loose,)}))
    try:
        opened = open_bundle(folder)
        checks = run_selftest(opened)
        with Detector(folder) as detector:
            assert detector.info.variant == "cuda-fp16-fused"
            assert len(detector(tiny_picture)) > 3
        pipeline = open_pipeline(opened, Candidate(loose, "onnxruntime", "cpu"))
        with open_model(folder) as measured:
            image = np.full((90, 120, 3), 128, np.uint8)
            assert len(measured.detect(image)) == len(pipeline.run(image).scores)
        with pytest.raises(ValueError, match="adaptation"), open_model(folder, adaptation="none"):
            pass
    finally:
        write_manifest(folder, manifest)
    assert len(checks) == 1
    assert checks[0].missing == 0
    assert checks[0].within > 0.8


@pytest.mark.parametrize("kind", ["fp32", "fp16"])
def test_tensorrt_builds_an_engine(free, bundle, kind):
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX stands in for TensorRT")
    from posesdk_converters.nvidia.rtx import check_with_rtx
    from posesdk_runtimes.engines.recipe import ShapeRange

    if kind == "fp32":
        sizes = ShapeRange((1, 64, 64, 3), (1, 64, 96, 3), (1, 96, 96, 3))
        check = check_with_rtx(free[0], GraphRecipe({"image": sizes}, workspace_mib=64), kind)
    else:
        check = check_with_rtx(bundle[0] / bundle[1].trunk, GraphRecipe(workspace_mib=64), kind)
    assert check.passed, check.errors
    assert check.engine_mib > 0
