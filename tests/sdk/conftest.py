"""A model small enough to be written by hand: it sees a person wherever a bright spot is."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from posesdk.bundle import GOLDEN_EXPECTED, GOLDEN_IMAGE, build_manifest_files, write_bundle, write_manifest
from posesdk.detector import Detector
from posesdk.manifest import Licence, Manifest, Variant
from posesdk.skeleton import COCO_17
from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, InputSpec, ModelSpec

K, DEPTH, MESH = 17, 2, 5
SHAPE = np.stack([np.linspace(-4, 4, K), np.linspace(5, -5, K)], axis=1)
"""Cells from a keypoint to its center: a person is a slanted line of 32 x 40 net px."""


def write_trunk(path: Path, offsets: np.ndarray, colors: tuple[float, float, float]) -> None:
    """Brightness, weighted by color (RGB), averaged over 4 x 4 px, as heatmaps and embedding; constant offsets."""
    onnx = pytest.importorskip("onnx", reason="the test model is an ONNX file")
    helper, kinds = onnx.helper, onnx.TensorProto
    channels = (K + 1) + 2 * K + DEPTH
    weights = np.full((channels, 3, 4, 4), 1 / (48 * 255), np.float32) * np.float32(colors)[:, None, None]
    bias = np.zeros(channels, np.float32)
    weights[K + 1 : 3 * K + 1] = 0
    bias[K + 1 : 3 * K + 1] = offsets.reshape(-1)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=kinds.FLOAT),
        helper.make_node("Transpose", ["float"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "weights", "bias"], ["maps"], strides=[4, 4], kernel_shape=[4, 4]),
        helper.make_node("Split", ["maps", "sizes"], ["heatmaps", "offsets", "features"], axis=1),
        helper.make_node("Transpose", ["features"], ["embedding"], perm=[0, 2, 3, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "trunk",
        [helper.make_tensor_value_info("image", kinds.UINT8, ["b", "H", "W", 3])],
        [
            helper.make_tensor_value_info("heatmaps", kinds.FLOAT, ["b", K + 1, "h", "w"]),
            helper.make_tensor_value_info("offsets", kinds.FLOAT, ["b", 2 * K, "h", "w"]),
            helper.make_tensor_value_info("embedding", kinds.FLOAT, ["b", "h", "w", DEPTH]),
        ],
        [
            onnx.numpy_helper.from_array(weights, "weights"),
            onnx.numpy_helper.from_array(bias, "bias"),
            onnx.numpy_helper.from_array(np.array([K + 1, 2 * K, DEPTH]), "sizes"),
        ],
    )
    save(graph, path)


def write_adapt(path: Path) -> None:
    """A kernel that is the brightness of the middle of the mesh, the same for every place of the mesh, plus 1/2."""
    onnx = pytest.importorskip("onnx", reason="the test model is an ONNX file")
    helper, kinds = onnx.helper, onnx.TensorProto
    weights = np.zeros((K, DEPTH, MESH, MESH), np.float32)
    weights[:, :, MESH // 2, MESH // 2] = 1 / DEPTH
    node = helper.make_node("Conv", ["context", "weights", "bias"], ["attraction_maps"], group=K, pads=[MESH // 2] * 4)
    graph = helper.make_graph(
        [node],
        "adapt",
        [helper.make_tensor_value_info("context", kinds.FLOAT, ["n", K * DEPTH, MESH, MESH])],
        [helper.make_tensor_value_info("attraction_maps", kinds.FLOAT, ["n", K, MESH, MESH])],
        [
            onnx.numpy_helper.from_array(weights, "weights"),
            onnx.numpy_helper.from_array(np.full(K, 0.5, np.float32), "bias"),
        ],
    )
    save(graph, path)


def save(graph, path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="the test model is an ONNX file")
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def tiny_spec() -> ModelSpec:
    return ModelSpec(
        name="tiny",
        skeleton=COCO_17,
        input=InputSpec(side=64),
        heads=HeadSpec(embedding=DEPTH),
        decode=DecodeSpec(center_threshold=0.05, score_threshold=0.01, keypoint_threshold=0.02),
        adaptation=AdaptationSpec(local_size=MESH, global_size=9, reweigh_sigma=None),
    )


def write_tiny_bundle(
    folder: Path,
    golden_image: np.ndarray | None = None,
    *,
    offsets: np.ndarray = SHAPE,
    colors: tuple[float, float, float] = (1, 1, 1),
    **changes: object,
) -> Path:
    """A bundle folder; `changes` replace fields of its manifest."""
    write_trunk(folder / "portable" / "trunk.onnx", offsets, colors)
    write_adapt(folder / "portable" / "adapt.onnx")
    variant = Variant(
        name="onnx-fp32",
        runtime=("onnxruntime", "openvino"),
        trunk="portable/trunk.onnx",
        adapt="portable/adapt.onnx",
    )
    fields = {
        "id": "tiny",
        "version": "1.2.3",
        "model": tiny_spec(),
        "created": "2026-01-01T00:00:00Z",
        "variants": (variant,),
        "licence": Licence(code="Apache-2.0", weights="CC0-1.0", training_data=("none",)),
    }
    manifest = Manifest(**(fields | {"files": build_manifest_files(folder)} | changes))
    write_manifest(folder, manifest)
    if golden_image is not None:
        write_golden(folder, manifest, golden_image)
    return folder


def write_golden(folder: Path, manifest: Manifest, image: np.ndarray) -> None:
    with Detector(folder, runtime="onnxruntime") as detector:
        expected = detector(image).to_dict()
    (folder / "golden").mkdir()
    assert cv2.imwrite(str(folder / GOLDEN_IMAGE), image)
    (folder / GOLDEN_EXPECTED).write_text(json.dumps(expected))
    write_manifest(folder, manifest.model_copy(update={"files": build_manifest_files(folder)}))


def bright_spots(centers: list[tuple[float, float]], size: tuple[int, int] = (128, 192), peak: float = 250.0):
    """A black BGR picture (height, width) with a soft bright spot around each (x, y)."""
    ys, xs = np.mgrid[: size[0], : size[1]]
    light = np.zeros(size)
    for index, (x, y) in enumerate(centers):
        light += (peak - 30 * index) * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 8.0**2))
    return np.repeat(light.clip(0, 255).round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="session")
def spots() -> Callable[..., np.ndarray]:
    return bright_spots


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a bundle folder, with a golden picture of two people."""
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle", bright_spots([(50, 60), (140, 70)]))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_folder: Path) -> Path:
    """The tiny model as a `.posebundle`."""
    return write_bundle(tiny_folder, tiny_folder.parent / "tiny.posebundle")


@pytest.fixture(scope="session")
def make_bundle() -> Callable[..., Path]:
    return write_tiny_bundle


@pytest.fixture(scope="session")
def change_golden() -> Callable[[Path, Callable[[list], object]], None]:
    """Edits the expected people of a bundle folder, and its manifest to fit."""

    def edit(folder: Path, change: Callable[[list], object]) -> None:
        path = folder / GOLDEN_EXPECTED
        data = json.loads(path.read_text())
        change(data["persons"])
        path.write_text(json.dumps(data))
        manifest = json.loads((folder / "manifest.json").read_text())
        files = [file.model_dump() for file in build_manifest_files(folder)]
        (folder / "manifest.json").write_text(json.dumps(manifest | {"files": files}))

    return edit


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """What a zipped bundle unpacks does not land in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSESDK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
