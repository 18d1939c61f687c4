"""Models with head and body centers through every target: DAC, and LOGO-CAP with dual centers."""

import re
from dataclasses import replace
from functools import cache
from importlib.util import find_spec

import numpy as np
import onnx
import pytest
import torch

pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")

from posesdk.bundle import open_bundle
from posesdk.pipeline import settled
from posesdk.verify import Gate, Reference
from posesdk_converters.calibration import record_feeds
from posesdk_converters.importers.bundle import import_bundle
from posesdk_converters.nvidia.profiles import engine_recipes
from posesdk_converters.onnx import export_adapt
from posesdk_converters.products import float_reason
from posesdk_converters.rendering.render import render_people
from posesdk_converters.request import Request, check_request
from posesdk_converters.target import ALL_QUANTIZED, PORTABLE, Conversion, find_target
from posesdk_converters.verification.judge import Judge
from posesdk_converters.verification.parity import open_pipeline, pose_distances
from posesdk_converters.verification.sensitivity import layers_of, rank_layers
from posesdk_runtimes.registry import open_runtime
from posesdk_training.checkpoint import load_model
from posesdk_training.models.build import build_model
from posesdk_training.models.graphs import Adapt, Trunk
from posesdk_training.torch_runtime import torch_pipeline

SIZE = (96, 96)
PICTURES = 6
DAC_ADAPT = {"similarity": (6,), "confidence": (), "residuals": (17, 2)}
"""Shape of each output for one pose."""
NO_MOBILE = [name for name in ("litert_torch", "ai_edge_quantizer", "ai_edge_litert") if find_spec(name) is None]
mobile = pytest.mark.skipif(bool(NO_MOBILE), reason=f"needs {NO_MOBILE} of the [convert-mobile] extra")
TARGETS = ["onnx", "cpu", pytest.param("mobile", marks=mobile), "cuda", "jetson"]


@pytest.fixture(scope="module")
def photos():
    """Rendered people, as high as wide and not."""
    sizes = [(96, 128), (128, 96), (96, 96)]
    return [render_people(seed, people=3, size=sizes[seed % 3]).image for seed in range(PICTURES)]


def start(bundle, checkpoint, photos, folder):
    """The conversion that made a bundle, with its portable graphs in a folder."""
    opened, model = open_bundle(bundle), load_model(checkpoint)
    (portable,) = (variant for variant in opened.manifest.variants if variant.trunk.startswith(PORTABLE))
    for variant in opened.manifest.variants:
        for name in (variant.trunk, variant.adapt):
            (folder / name).parent.mkdir(exist_ok=True)
            for file in (name, name.replace(".xml", ".bin")):
                (folder / file).write_bytes(opened.read(file))
    with open_pipeline(model.spec, folder, portable, "onnxruntime") as pipeline:
        return Conversion(folder, portable, model, record_feeds(pipeline, photos))


@pytest.fixture(scope="module")
def dac(dac_bundle, tiny_dac_checkpoint, photos, tmp_path_factory):
    return start(dac_bundle, tiny_dac_checkpoint, photos, tmp_path_factory.mktemp("dac"))


@pytest.fixture(scope="module")
def dual(dual_bundle, tiny_dual_checkpoint, photos, tmp_path_factory):
    return start(dual_bundle, tiny_dual_checkpoint, photos, tmp_path_factory.mktemp("dual"))


@pytest.fixture(params=["dac", "dual"])
def conversion(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def dac_mobile(dac):
    """The float32 variant of target mobile."""
    pytest.importorskip("litert_torch", reason="target mobile needs the [convert-mobile] extra")
    (variant,) = find_target("mobile").convert(dac, "fp32")
    return variant


@pytest.fixture(scope="module")
def int8(dac):
    """`int8(target)`: the variant in int8 of a target, made once."""

    @cache
    def variant(name):
        (made,) = find_target(name).convert(dac, "int8")
        return made

    return variant


def run(path, feeds):
    opened = open_runtime(path, runtime="tflite" if path.suffix == ".tflite" else "onnxruntime", threads=1)
    try:
        return opened.run(feeds)
    finally:
        opened.close()


def require_same_poses(conversion, variant, runtime, photos):
    """As many persons as torch finds, 99.9 % of their keypoints within 0.05 px; all of the decoder is in between."""
    spec = settled(conversion.model.spec, conversion.model.spec.decode, variant.input_size)
    torch_model, distances = torch_pipeline(conversion.model, spec), []
    with open_pipeline(conversion.model.spec, conversion.folder, variant, runtime) as pipeline:
        for photo in photos:
            found, wanted = pipeline.run(photo), torch_model.run(photo)
            assert len(found.scores) == len(wanted.scores)
            np.testing.assert_allclose(np.sort(found.scores), np.sort(wanted.scores), atol=1e-4)
            distances.append(pose_distances(found, wanted)[0])
    distances = np.concatenate(distances)
    assert distances.size >= 17 * 5 * len(photos)
    assert (distances <= 0.05).mean() >= 0.999


def test_trunk_gives_maps_of_both_centers_and_four_levels(dac):
    image = np.zeros((2, 96, 64, 3), np.uint8)
    found = run(dac.graphs["trunk"], {"image": image})
    assert [(name, values.shape) for name, values in found.items()] == [
        ("heatmaps", (2, 19, 24, 16)),
        ("offsets", (2, 68, 24, 16)),
        ("level0", (2, 24, 16, 8)),
        ("level1", (2, 12, 8, 8)),
        ("level2", (2, 6, 4, 8)),
        ("level3", (2, 3, 2, 8)),
    ]


def test_trunk_of_logocap_gives_maps_of_both_centers_and_the_embedding(dual):
    found = run(dual.graphs["trunk"], {"image": np.zeros((1, 64, 96, 3), np.uint8)})
    assert [(name, values.shape) for name, values in found.items()] == [
        ("heatmaps", (1, 19, 16, 24)),
        ("offsets", (1, 68, 16, 24)),
        ("embedding", (1, 16, 24, 4)),
    ]


@pytest.mark.parametrize("count", [1, 4, 61])
def test_adapt_of_dac_takes_any_number_of_poses(dac, count):
    context = np.random.default_rng(count).standard_normal((count, 17, 4 * 8 + 25 + 2), np.float32)
    found = run(dac.graphs["adapt"], {"context": context})
    with torch.inference_mode():
        wanted = dac.model.pose_nets(torch.from_numpy(context))
    assert {name: values.shape for name, values in found.items()} == {
        name: (count, *shape) for name, shape in DAC_ADAPT.items()
    }
    for name, values in found.items():
        np.testing.assert_allclose(values, getattr(wanted, name), atol=1e-5)


@mobile
@pytest.mark.parametrize("count", [1, 2, 60])
def test_adapt_of_dac_on_litert_takes_any_number_of_poses(dac, dac_mobile, count):
    context = np.random.default_rng(count).standard_normal((count, 17, 59), np.float32)
    found, wanted = (run(dac.folder / path, {"context": context}) for path in (dac_mobile.adapt, dac.portable.adapt))
    for name, shape in DAC_ADAPT.items():
        assert found[name].shape == (count, *shape)
        np.testing.assert_allclose(found[name], wanted[name], atol=1e-5)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_poses_are_those_of_torch(conversion, photos, runtime):
    pytest.importorskip(runtime, reason="the bundle is for this runtime")
    require_same_poses(conversion, conversion.portable, runtime, photos)


def test_poses_of_the_openvino_files_are_those_of_torch(conversion, photos):
    changes = {"name": "cpu-fp32", "trunk": "cpu-fp32/trunk.xml", "adapt": "cpu-fp32/adapt.xml"}
    require_same_poses(conversion, conversion.portable.model_copy(update=changes), "openvino", photos)


@mobile
def test_poses_on_litert_are_those_of_torch(dac, dac_mobile, photos):
    assert dac_mobile.input_size == SIZE
    require_same_poses(dac, dac_mobile, "tflite", photos)


@mobile
def test_poses_of_dual_centers_on_litert_are_those_of_torch(dual, photos):
    (variant,) = find_target("mobile").convert(dual, "fp32")
    require_same_poses(dual, variant, "tflite", photos)


def test_some_poses_of_two_centers_are_one_person(dac, photos):
    """Else the tests above would say nothing about grouping."""
    with open_pipeline(dac.model.spec, dac.folder, dac.portable, "onnxruntime") as pipeline:
        for feed, photo in zip(dac.feeds.adapt, photos, strict=True):
            assert len(pipeline.run(photo).scores) < min(len(feed), 30)


@pytest.mark.parametrize("name", TARGETS)
def test_int8_quantizes_the_trunk_and_no_more_than_the_weights_of_the_pose_networks(dac, int8, photos, name):
    # What int8 leaves is float16 for cuda; for CPUs and phones matrices have 8 bit.
    tolerance = {"cuda": 1e-3, "cpu": 0.05, "mobile": 0.05}.get(name, 1e-5)
    variant = int8(name)
    runtime = "onnxruntime" if "onnxruntime" in variant.runtime else variant.runtime[0]
    image, context = {"image": photos[2][None]}, {"context": dac.feeds.adapt[0]}
    wanted_maps, wanted = run(dac.graphs["trunk"], image), run(dac.graphs["adapt"], context)
    with open_pipeline(dac.model.spec, dac.folder, variant, runtime) as pipeline:
        assert len(pipeline.run(photos[0]).scores) > 5
        found_maps, found = pipeline.trunk.run(image), pipeline.adapt.run(context)
        alone = pipeline.adapt.run({"context": context["context"][-1:]})
    for output, values in wanted.items():
        np.testing.assert_allclose(found[output], values, atol=tolerance)
        np.testing.assert_allclose(alone[output], found[output][-1:], atol=1e-5)
    for output, values in wanted_maps.items():
        difference = np.abs(found_maps[output] - values)
        assert difference.max() > 1e-4
        assert difference.mean() < 0.1 * np.abs(values).max()
    assert set(variant.float_layers) < {node.name for node in layers_of(onnx.load(dac.graphs["trunk"]))}


@pytest.fixture
def judged(dac, photos):
    """`judged(gate)`: the variant that target onnx makes in int8, judged on all pictures, and the judge."""

    def judge_by(gate):
        named = [(f"{index}.png", photo) for index, photo in enumerate(photos)]
        with open_pipeline(dac.model.spec, dac.folder, dac.portable, "onnxruntime") as exact:
            reference = Reference(exact, named, None)
            judge = Judge(dac.model.spec, dac.folder, reference, gate, lambda text: None, len(named))
            (one,) = judge.convert(find_target("onnx"), dac, "int8")
        return one, judge

    return judge_by


def test_int8_goes_through_the_gate_and_layers_go_back_to_float_where_it_has_to_be_better(judged):
    lenient, judge = judged(Gate(min_oks=0.0, max_lost=10))
    assert lenient.fault is None
    assert judge.ranking == ()
    assert lenient.verification.deviation.people > 5 * PICTURES
    before = lenient.verification.deviation.mean_oks
    assert 0.2 < before < 0.995
    strict, judge = judged(Gate(min_oks=before + 0.05 * (1 - before), max_lost=10))
    assert strict.fault is None
    assert len(strict.variant.float_layers) > len(lenient.variant.float_layers)
    assert judge.ranking
    assert strict.verification.deviation.mean_oks > before


def test_graph_without_convolutions_is_float_by_its_nature_another_without_people(dac, dual):
    assert float_reason(dac, "trunk") is None
    assert float_reason(dac, "adapt") == "adapt is float: it has no convolutions"
    assert float_reason(dual, "adapt") is None
    nobody = replace(dual, feeds=replace(dual.feeds, adapt=()))
    assert "nobody was found" in float_reason(nobody, "adapt")


def test_layers_are_ranked_where_only_the_trunk_has_any(dac):
    feeds = replace(dac.feeds, trunk=dac.feeds.trunk[:1], adapt=dac.feeds.adapt[:1])
    ranking = rank_layers(dac.graphs, feeds, step=lambda text: None)
    assert {entry.graph for entry in ranking} == {"trunk"}
    assert len(ranking) == len(layers_of(onnx.load(dac.graphs["trunk"])))


def test_every_matrix_of_the_pose_networks_has_8_bit_on_cpus(dac, int8):
    variant = int8("cpu")
    layers = [layer for layer in dac.model.pose_nets.modules() if isinstance(layer, torch.nn.Linear)]
    stored = re.findall(r'element_type="i8" shape="([0-9, ]+)"', (dac.folder / variant.adapt).read_text())
    sizes = sorted(int(np.prod(list(map(int, shape.split(","))))) for shape in stored)
    assert sizes == sorted(layer.weight.numel() for layer in layers)


@mobile
def test_every_matrix_of_the_pose_networks_has_8_bit_on_phones(dac, int8):
    from ai_edge_litert.interpreter import Interpreter

    variant = int8("mobile")
    layers = [layer for layer in dac.model.pose_nets.modules() if isinstance(layer, torch.nn.Linear)]
    details = Interpreter(str(dac.folder / variant.adapt)).get_tensor_details()
    sizes = sorted(int(np.prod(detail["shape"])) for detail in details if detail["dtype"] == np.int8)
    assert sizes == sorted(layer.weight.numel() for layer in layers)


@pytest.mark.parametrize("name", ["cuda", "jetson"])
def test_float16_of_the_pose_networks_is_near_and_stands_in_the_file(dac, name):
    (variant,) = find_target(name).convert(dac, "fp16", float_layers=ALL_QUANTIZED)
    graph = onnx.load(dac.folder / variant.adapt).graph
    stored = {value.name: value.data_type for value in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    half = [node for node in products if stored[node.input[1]] == onnx.TensorProto.FLOAT16]
    last = [node for node in products if node not in half]
    assert (len(products), len(last)) == (14, 3)
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    assert [stored[node.input[1]] for node in norms] == 3 * [onnx.TensorProto.FLOAT]
    context = {"context": dac.feeds.adapt[0]}
    wanted = run(dac.graphs["adapt"], context)
    for output, values in run(dac.folder / variant.adapt, context).items():
        assert 0 < np.abs(values - wanted[output]).max() < 0.02


def test_engines_are_made_for_a_pose_of_each_center(dac):
    spec = dac.model.spec
    shapes = engine_recipes(spec, None, 64)["adapt"].profiles["context"]
    assert (shapes.min, shapes.opt, shapes.max) == ((1, 17, 59), (10, 17, 59), (2 * 30, 17, 59))


@pytest.mark.parametrize("fields", [{"method": "dac", "centers": "dual"}, {"centers": "dual"}, {"method": "dac"}])
def test_fused_graph_of_another_method_is_refused_at_once(dac, fields):
    spec = dac.model.spec.model_copy(update={"method": "logocap", "centers": "single", **fields})
    with pytest.raises(ValueError, match="is for method 'logocap' with centers 'single': convert it without"):
        check_request(spec, Request(("cuda:fp16",), fused=True))


def test_model_of_a_bundle_computes_what_its_checkpoint_does(dac_bundle, tiny_dac_checkpoint):
    source, wanted = import_bundle(dac_bundle), load_model(tiny_dac_checkpoint)
    found = build_model(source.spec)
    found.load_state_dict(source.state_dict)
    rng = np.random.default_rng(1)
    image = torch.from_numpy(rng.integers(0, 256, (1, 64, 96, 3), np.uint8))
    context = torch.from_numpy(rng.random((3, 17, 59), np.float32))
    for graph, value in ((Trunk, image), (Adapt, context)):
        with torch.inference_mode():
            for one, other in zip(graph(found)(value), graph(wanted)(value), strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    for name, values in wanted.pose_nets.state_dict().items():
        np.testing.assert_array_equal(source.state_dict[f"pose_nets.{name}"], values)


@pytest.mark.parametrize("switched_off", [("similarity", "refinement"), ("confidence",)])
def test_graph_gives_what_the_networks_that_are_there_say(dac, tmp_path, switched_off):
    nets = dac.model.spec.pose_nets.model_copy(update=dict.fromkeys(switched_off, False))
    spec = dac.model.spec.model_copy(update={"pose_nets": nets})
    torch.manual_seed(0)
    export_adapt(build_model(spec).eval(), tmp_path / "adapt.onnx")
    outputs = {"similarity": "similarity", "confidence": "confidence", "refinement": "residuals"}
    wanted = [output for name, output in outputs.items() if name not in switched_off]
    assert [value.name for value in onnx.load(tmp_path / "adapt.onnx").graph.output] == wanted
