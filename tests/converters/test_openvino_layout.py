"""The layout changes of OpenVINO trunks: the same outputs, under the same names."""

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the conversion needs the [convert] extra")

from posesdk_converters.openvino_ir import save_ir
from posesdk_converters.openvino_layout import fold_output_scales, pack_maps
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


@pytest.mark.parametrize("channels", [(18, 34, 16), (19, 68)], ids=["embedding", "levels"])
@pytest.mark.parametrize("activation", ["sigmoid", "none"])
@pytest.mark.parametrize("shape", [(1, 3, 8, 16), (2, 3, 16, 8)])
def test_packed_maps_are_the_same_maps(tmp_path, activation, shape, channels):
    image = np.random.default_rng(1).standard_normal(shape, dtype=np.float32)
    plain, packed = (build(channels, activation=activation) for _ in range(2))
    pack_maps(packed)
    assert "VariadicSplit" in kinds(packed)
    wanted, found = run(plain, tmp_path, image), run(packed, tmp_path, image)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=1e-6)


@pytest.mark.parametrize("channels", [(18, 34, 16), (19, 68)], ids=["embedding", "levels"])
def test_maps_of_a_fixed_size_are_the_same_maps(tmp_path, channels):
    image = np.random.default_rng(1).standard_normal((1, 3, 8, 16), dtype=np.float32)
    plain, turned = build(channels), build(channels)
    turned.reshape([1, 3, 8, 16])
    pack_maps(turned)
    assert kinds(turned).count("Transpose") > kinds(plain).count("Transpose")
    wanted, found = run(plain, tmp_path, image), run(turned, tmp_path, image)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, atol=1e-6)


def test_few_channels_are_left_alone():
    model = build((18, 34, 12))
    pack_maps(model)
    assert "VariadicSplit" not in kinds(model)


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
