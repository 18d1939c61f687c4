"""Where the tests find what does not live in the repository."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts background jobs like this, and the programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # So does nohup. These tests go on ignoring it, but what they start gets it as from a terminal.
    signal.signal(signal.SIGHUP, lambda number, frame: None)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

Arrays = dict[str, np.ndarray]
SIZES = [(64, 96), (96, 64), (96, 96)]


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(('shared', *parts))}, which lies beside the repository and is not here")
    return path


@pytest.fixture(scope="session")
def shared() -> Callable[..., Path]:
    """`shared("data", "coco_eval")`: a path beside the repository; the test is skipped where it is absent."""
    return _shared


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that stands for the one of the models that come with the package."""
    folder = tmp_path / "models"
    folder.mkdir()
    for module in ("bundle", "shipped"):
        monkeypatch.setattr(f"posesdk.{module}.models_folder", lambda: folder)
    return folder


@pytest.fixture(scope="session")
def reference() -> Callable[[str], Arrays]:
    """`reference("nms")`: the arrays of one file of published outputs (shared/reference/logocap)."""

    def load(name: str) -> Arrays:
        with np.load(_shared("reference", "logocap", f"{name}.npz")) as archive:
            return {key: archive[key] for key in archive.files}

    return load


def _random_model(spec):
    """A model on an edge backbone, whose seeded random weights find several persons in any picture.

    Its normalisation is calibrated: with the initial statistics its maps would be flat, and rounding would decide.
    """
    torch = pytest.importorskip("torch", reason="the model is built in torch")
    from posesdk_training.models.build import build_model

    torch.manual_seed(0)
    model = build_model(spec)
    blocks = torch.randn(8, 3, 12, 12).repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.no_grad():
        model.final_layer_cls.weight *= 3
        model.final_layer_cls.bias += 2
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        model(blocks)
        if spec.method == "dac":
            # Both centers see the same pose of 30 to 60 px, so that some are one person's, and the refinement, 0 at
            # first, moves it.
            model.final_layer_reg.bias.copy_(3 / spec.heads.offset_scale * torch.randn(34).repeat(2))
            model.pose_nets.refinement.output.weight.normal_()
        else:
            model.joints_mlp[-1].bias += 0.5
            size = spec.adaptation.local_size
            model.joints_mlp(torch.relu(torch.randn(32, 17 * spec.heads.embedding, size, size)))
    return model.eval()


def _save_tiny(path: Path, **method) -> Path:
    """A checkpoint of a small model of `_random_model`; `method`: what its specification says of name and method."""
    pytest.importorskip("torch", reason="a checkpoint is made by torch")
    from posesdk.spec import AdaptationSpec, DecodeSpec, EdgeBackboneSpec, HeadSpec, InputSpec, ModelSpec, PoseNetsSpec
    from posesdk_training.checkpoint import save_checkpoint

    spec = ModelSpec(
        **method,
        input=InputSpec(resize="long", side=96, multiple=32),
        backbone=EdgeBackboneSpec(stem=8, channels=(8, 8, 8, 8), blocks=(1, 1, 1, 1), neck=8),
        heads=HeadSpec(heatmap_channels=8, offset_channels=8, embedding=4, activation="sigmoid"),
        decode=DecodeSpec(score_threshold=0.0),
        adaptation=AdaptationSpec(
            message_channels=(8, 6, 4), affine_pairs=2, local_size=5, global_size=17, reweigh_sigma=3
        ),
        pose_nets=PoseNetsSpec(
            encoder=8, hidden=(16, 12), refinement_hidden=(16, 12), refinement_head=8, embedding=6, group_threshold=0.3
        ),
    )
    save_checkpoint(path, _random_model(spec).state_dict(), spec, metadata={"training_data": "none", "step": "0"})
    return path


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LOGO-CAP with one center."""
    return _save_tiny(tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors", name="tiny")


@pytest.fixture(scope="session")
def tiny_dual_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LOGO-CAP with a head and a body center."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny-dual.safetensors"
    return _save_tiny(path, name="tiny-dual", centers="dual")


@pytest.fixture(scope="session")
def tiny_dac_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dual Anatomical Centers with all three pose networks."""
    path = tmp_path_factory.mktemp("checkpoint") / "tiny-dac.safetensors"
    return _save_tiny(path, name="tiny-dac", method="dac", centers="dual")


@pytest.fixture(scope="session")
def tiny_picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small picture of coloured blocks."""
    cv2 = pytest.importorskip("cv2")
    blocks = (
        np.random.default_rng(3).integers(0, 256, (9, 12, 3)).astype(np.uint8).repeat(10, axis=0).repeat(10, axis=1)
    )
    path = tmp_path_factory.mktemp("picture") / "blocks.png"
    cv2.imwrite(str(path), blocks)
    return path


def _convert_for_cpu(checkpoint: Path, golden: Path, folder: Path) -> Path:
    """A checkpoint as `posesdk-convert --target cpu` packs it."""
    pytest.importorskip("onnxscript", reason="the conversion needs the [convert] extra")
    pytest.importorskip("openvino", reason="the conversion needs the [convert] extra")
    from posesdk_converters.package import convert
    from posesdk_converters.request import Request
    from posesdk_training.checkpoint import load_checkpoint

    path = folder / f"{checkpoint.stem}.posebundle"
    convert(load_checkpoint(checkpoint), Request(("cpu",), golden=golden), path, step=lambda text: None)
    return path


@pytest.fixture(scope="session")
def converted_bundle(tiny_checkpoint: Path, tiny_picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint` for CPUs, with `tiny_picture` as its golden image."""
    return _convert_for_cpu(tiny_checkpoint, tiny_picture, tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="session")
def dual_bundle(tiny_dual_checkpoint: Path, tiny_picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_dual_checkpoint` likewise."""
    return _convert_for_cpu(tiny_dual_checkpoint, tiny_picture, tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="session")
def dac_bundle(tiny_dac_checkpoint: Path, tiny_picture: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_dac_checkpoint` likewise."""
    return _convert_for_cpu(tiny_dac_checkpoint, tiny_picture, tmp_path_factory.mktemp("converted"))


@pytest.fixture(scope="session", params=["converted_bundle", "dual_bundle", "dac_bundle"])
def every_bundle(request: pytest.FixtureRequest) -> Path:
    """A small model of each method, converted for CPUs: LOGO-CAP with one center, with two, and DAC."""
    path: Path = request.getfixturevalue(request.param)
    return path


def _pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        height, width = SIZES[index % len(SIZES)]
        blocks = rng.integers(0, 256, (1, height // 8, width // 8, 3), dtype=np.uint8)
        yield blocks.repeat(8, axis=1).repeat(8, axis=2)


def _contexts(count, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        yield np.maximum(rng.standard_normal((1 + index % 3, 17 * 4, 5, 5), dtype=np.float32), 0)


@pytest.fixture(scope="session")
def pictures() -> Callable:
    """`pictures(count, seed)`: inputs (1, H, W, 3) of the tiny trunk, of three sizes in turn."""
    return _pictures


@pytest.fixture(scope="session")
def contexts() -> Callable:
    """`contexts(count, seed)`: inputs of the tiny adapt graph, of 1, 2 and 3 persons in turn."""
    return _contexts


@pytest.fixture(scope="session")
def start_conversion(
    converted_bundle: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable:
    """`start_conversion(feeds=..., notes=...)`: a conversion of the tiny model, its portable graphs in a folder."""
    from posesdk.bundle import open_bundle
    from posesdk_converters.calibration import Feeds
    from posesdk_converters.target import PORTABLE, Conversion
    from posesdk_training.checkpoint import load_model

    bundle, model = open_bundle(converted_bundle), load_model(tiny_checkpoint)
    (portable,) = (variant for variant in bundle.manifest.variants if variant.trunk.startswith(PORTABLE))
    calibration = Feeds(tuple(_pictures(12)), tuple(_contexts(12)))

    def start(**changes):
        folder = tmp_path_factory.mktemp("bundle")
        (folder / PORTABLE).mkdir()
        for name in (portable.trunk, portable.adapt):
            (folder / name).write_bytes(bundle.read(name))
        return Conversion(**{"folder": folder, "portable": portable, "model": model, "feeds": calibration, **changes})

    return start


@pytest.fixture(scope="session")
def mobile_bundle(converted_bundle: Path, start_conversion: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`converted_bundle` with what target mobile makes of it, in fp32, fp16 and int8, in place of the OpenVINO files.

    int8 is calibrated on blocks of colour: it runs, and is good for nothing else.
    """
    pytest.importorskip("litert_torch", reason="target mobile needs the [convert-mobile] extra")
    from posesdk.bundle import build_manifest_files, open_bundle, write_bundle, write_manifest
    from posesdk_converters.target import find_target

    bundle, conversion = open_bundle(converted_bundle), start_conversion()
    for name in (file.path for file in bundle.manifest.files if file.path.startswith("golden")):
        (conversion.folder / name).parent.mkdir(exist_ok=True)
        (conversion.folder / name).write_bytes(bundle.read(name))
    precisions = ("fp32", "fp16", "int8")
    variants = [variant for one in precisions for variant in find_target("mobile").convert(conversion, one)]
    files = build_manifest_files(conversion.folder)
    changes = {"variants": (*variants, conversion.portable), "accuracy": (), "files": files}
    write_manifest(conversion.folder, bundle.manifest.model_copy(update=changes))
    return write_bundle(conversion.folder, tmp_path_factory.mktemp("converted") / "mobile.posebundle")
