"""The layout changes of OpenVINO trunks: the same outputs, under the same names."""

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the conversion needs the [convert] extra")

from posesdk_converters.nncf_int8 import quantize
from posesdk_converters.openvino_ir import save_ir
from posesdk_converters.openvino_layout import fold_output_scales, hand_out_maps, spread_normalisation
from posesdk_runtimes.openvino import import_openvino
from posesdk_runtimes.registry import open_runtime


def head(maps, weights, name, scale=None, *, activation=None):
    """A 1x1 convolution with a bias, and what follows it, as the trunk's outputs have it."""
    op = import_openvino().opset13
    layer = op.add(op.convolution(maps, op.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1]), bias(len(weights)))
    if scale is not None:
        layer = op.multiply(layer, op.constant(np.float32(scale)))
    if activation == "sigmoid":
        layer = op.sigmoid(layer)
    if name == "embedding":
        layer = op.transpose(layer, op.constant(np.array([0, 2, 3, 1])))
    layer.output(0).set_names({name})
    layer.set_friendly_name(name)
    return layer


def bias(count):
    op = import_openvino().opset13
    return op.constant(np.linspace(-1, 1, count, dtype=np.float32).reshape(1, count, 1, 1))


def build(channels, *, activation="sigmoid", scale=8.0):
    """A model (B, 3, h, w) -> heatmaps, offsets and, of three numbers, embedding with that many channels."""
    openvino = import_openvino()
    rng = np.random.default_rng(0)
    image = openvino.opset13.parameter([-1, 3, -1, -1], np.float32, name="image")
    image.output(0).set_names({"image"})
    weights = [rng.standard_normal((count, 3, 1, 1), dtype=np.float32) for count in channels]
    outputs = [
        head(image, weights[0], "heatmaps", activation=activation),
        head(image, weights[1], "offsets", scale),
        *(head(image, rows, "embedding") for rows in weights[2:]),
    ]
    return openvino.Model(outputs, [image], "trunk")


def run(model, folder, image):
    path = folder / "trunk.xml"
    save_ir(model, path)
    opened = open_runtime(path, runtime="openvino", threads=1)
    found = opened.run({"image": image})
    opened.close()
    return found


def kinds(model):
    return [node.get_type_name() for node in model.get_ops()]


def ordered_kinds(model):
    return [node.get_type_name() for node in model.get_ordered_ops()]


@pytest.mark.parametrize("channels", [(18, 34, 16), (19, 68), (18, 34, 12)], ids=["embedding", "levels", "few"])
@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (2, 3, 16, 8)])
@pytest.mark.parametrize("fixed", [False, True], ids=["free", "fixed"])
def test_maps_that_are_handed_out_are_the_same_maps(tmp_path, activation, shape, channels, fixed):
    image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    plain, changed = (build(channels, activation=activation) for _ in range(2))
    if fixed:
        changed.reshape(list(shape))
    hand_out_maps(changed)
    wanted, found = run(plain, tmp_path, image), run(changed, tmp_path, image)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=1e-6)


def test_offsets_are_seen_as_planes_and_lie_row_by_row(tmp_path):
    model = build((18, 34, 16))
    hand_out_maps(model)
    found = run(model, tmp_path, np.ones((1, 3, 8, 16), np.float32))
    assert found["offsets"].shape == (1, 34, 8, 16)
    assert found["offsets"].transpose(0, 2, 3, 1).flags.c_contiguous
    assert found["heatmaps"].flags.c_contiguous


def test_graphs_without_maps_are_left_alone():
    model = build((18, 34, 16))
    for result in model.get_results():
        result.input_value(0).set_names({f"other-{name}" for name in result.input_value(0).get_names()})
    before = kinds(model)
    hand_out_maps(model)
    spread_normalisation(model)
    assert kinds(model) == before


MEAN, STD = (np.array(values, np.float32) for values in ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4)))


def picture_graph(form, *, free=True):
    """uint8 (B, H, W, 3) -> (x - mean) / std as planes, in one of the forms in which graphs say it -> convolution."""
    op = import_openvino().opset13
    image = op.parameter([-1, -1, -1, 3] if free else [1, 16, 32, 3], np.uint8, name="image")
    image.output(0).set_names({"image"})
    planes = op.transpose(op.convert(image, np.float32), op.constant(np.array([0, 3, 1, 2])))
    mean, std, factor = (op.constant(values.reshape(1, 3, 1, 1)) for values in (MEAN, STD, 1 / STD))
    if form == "quotient":
        value = op.divide(op.subtract(planes, mean), std)
    elif form == "product":
        value = op.add(op.multiply(planes, factor), op.constant((-MEAN / STD).reshape(1, 3, 1, 1)))
    else:
        ones, none, flat, square = (op.constant(one) for one in (np.ones_like(STD), 0 * STD, MEAN, STD**2 - 0.5))
        value = op.batch_norm_inference(planes, ones, none, flat, square, 0.5)
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3), dtype=np.float32)
    maps = op.convolution(value, op.constant(weights), [2, 2], [1, 1], [1, 1], [1, 1])
    maps.output(0).set_names({"maps"})
    return import_openvino().Model([maps], [image], "stem")


@pytest.mark.parametrize(("count", "free"), [(1, True), (2, True), (1, False)], ids=["free", "two", "fixed"])
@pytest.mark.parametrize("form", ["quotient", "product", "norm"])
def test_spread_normalisation_is_the_same_normalisation(tmp_path, form, count, free):
    image = np.random.default_rng(2).integers(0, 256, (count, 16, 32, 3), dtype=np.uint8)
    plain, spread = (picture_graph(form, free=free) for _ in range(2))
    spread_normalisation(spread)
    assert ordered_kinds(spread).index("Divide") < ordered_kinds(spread).index("Transpose")
    assert "BatchNormInference" not in kinds(spread)
    wanted, found = run(plain, tmp_path, image)["maps"], run(spread, tmp_path, image)["maps"]
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_int8_rounds_a_normalised_picture_once():
    model = picture_graph("norm")
    pictures = [np.random.default_rng(0).integers(0, 256, (1, 16, 32, 3), dtype=np.uint8)]
    quantized = quantize(model, pictures, float_layers=spread_normalisation(model))
    before = ordered_kinds(quantized)[: ordered_kinds(quantized).index("Convolution")]
    rounding = [kind for kind in before if kind in ("Divide", "FakeQuantize")]
    assert rounding == ["Divide", "FakeQuantize"]


def test_scale_goes_into_weights_and_bias(tmp_path):
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 8), dtype=np.float32)
    plain, folded = build((18, 34, 16), scale=0.3), build((18, 34, 16), scale=0.3)
    fold_output_scales(folded)
    assert "Multiply" in kinds(plain)
    assert "Multiply" not in kinds(folded)
    wanted, found = run(plain, tmp_path, image), run(folded, tmp_path, image)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


def test_scale_of_a_layer_that_others_read_stays():
    openvino = import_openvino()
    model = build((18, 34, 16))
    scaled = next(node for node in model.get_ops() if node.get_type_name() == "Multiply")
    other = openvino.opset13.relu(scaled.input_value(0))
    other.output(0).set_names({"other"})
    model.add_results([openvino.opset13.result(other)])
    fold_output_scales(model)
    assert "Multiply" in kinds(model)
