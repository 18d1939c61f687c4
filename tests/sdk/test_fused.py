from pathlib import Path

import numpy as np
import pytest

from posesdk.bundle import open_bundle
from posesdk.detector import Detector
from posesdk.fused import FusedPipeline
from posesdk.manifest import Variant
from posesdk.pipeline import open_pipeline
from posesdk.selftest import run_selftest
from posesdk.spec import AdaptationSpec
from posesdk.variants import select_variant
from posesdk_runtimes.errors import BundleError, RuntimeFault

pytest.importorskip("onnxruntime", reason="the test model runs on ONNX Runtime")
onnx = pytest.importorskip("onnx", reason="the test model is an ONNX file")

K = 17
SIZE = (64, 96)
SHAPE = np.stack([np.linspace(0, 20, K), np.linspace(0, 40, K)], axis=1)
POSES = np.stack([SHAPE + corner for corner in ((10, 10), (11, 10), (60, 12), (0, 0))])
"""Net px; the second is the first person once more, the last place is empty."""
CENTERS = np.array([0.9, 0.8, 0.5, 0.0])


def write_fused(path: Path, keypoints: np.ndarray = POSES, centers: np.ndarray = CENTERS) -> None:
    """Four places, whatever is seen; the scores go with the brightness of the image."""
    helper, kinds = onnx.helper, onnx.TensorProto
    values = {"poses": keypoints, "centers": centers, "scores": np.repeat(centers[:, None], K, 1), "levels": 255.0}
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "levels"], ["light"]),
        helper.make_node("Identity", ["poses"], ["keypoints"]),
        helper.make_node("Mul", ["scores", "light"], ["keypoint_scores"]),
        helper.make_node("Mul", ["centers", "light"], ["center_scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "fused",
        [helper.make_tensor_value_info("image", kinds.UINT8, [1, *SIZE, 3])],
        [
            helper.make_tensor_value_info("keypoints", kinds.FLOAT, [4, K, 2]),
            helper.make_tensor_value_info("keypoint_scores", kinds.FLOAT, [4, K]),
            helper.make_tensor_value_info("center_scores", kinds.FLOAT, [4]),
        ],
        [onnx.numpy_helper.from_array(np.float32(value), name) for name, value in values.items()],
    )
    path.parent.mkdir(parents=True)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


FUSED = Variant(name="fused", runtime=("onnxruntime",), trunk="fused/fused.onnx", graphs="fused", input_size=SIZE)
SPLIT = Variant(name="split", runtime=("onnxruntime",), trunk="portable/trunk.onnx", adapt="portable/adapt.onnx")


@pytest.fixture
def fused_folder(make_bundle, tmp_path):
    """Makes a bundle with a fused graph."""

    def make(variants=(FUSED,), golden=None, places=None, **values):
        write_fused(tmp_path / "bundle" / FUSED.trunk, **values)
        folder = make_bundle(tmp_path / "bundle", variants=variants)
        manifest = open_bundle(folder).manifest
        decode = manifest.model.decode.model_copy(update={"max_people": places or 4})
        from posesdk.bundle import write_manifest

        write_manifest(
            folder, manifest.model_copy(update={"model": manifest.model.model_copy(update={"decode": decode})})
        )
        return folder

    return make


def pipeline_of(folder: Path, **decode) -> FusedPipeline:
    bundle = open_bundle(folder)
    candidate = next(one for one in select_variant(bundle.manifest) if one.variant.graphs == "fused")
    changed = bundle.spec.decode.model_copy(update=decode)
    pipeline = open_pipeline(bundle, candidate, changed)
    assert isinstance(pipeline, FusedPipeline)
    return pipeline


def test_places_without_score_and_second_finds_of_a_person_are_dropped(fused_folder):
    image = np.full((128, 192, 3), 255, np.uint8)  # twice the input: net px x lies at 2x + 1/2
    estimate = pipeline_of(fused_folder()).run(image)
    assert np.allclose(estimate.scores, [0.9, 0.5])
    assert np.allclose(estimate.keypoints, 2 * POSES[[0, 2]] + 0.5)
    assert estimate.keypoint_scores.shape == (2, K)
    assert estimate.timing["trunk"] > 0
    assert estimate.timing["adapt"] == 0


def test_border_that_the_letterbox_adds_is_taken_off(fused_folder):
    image = np.full((64, 64, 3), 255, np.uint8)  # 16 net px of black on the left and on the right
    estimate = pipeline_of(fused_folder(), nms_distance=0.0).run(image)
    assert np.allclose(estimate.keypoints, POSES[:3] - [16, 0])
    assert np.allclose(estimate.scores, CENTERS[:3] * 64 / 96)


def test_no_more_candidates_are_taken_than_asked_for(fused_folder):
    image = np.full((*SIZE, 3), 255, np.uint8)
    assert np.allclose(pipeline_of(fused_folder(), max_people=2).run(image).scores, [0.9])


def test_black_image_has_nobody(fused_folder):
    estimate = pipeline_of(fused_folder()).run(np.zeros((*SIZE, 3), np.uint8))
    assert estimate.keypoints.shape == (0, K, 2)


def test_values_that_are_no_numbers_are_a_fault(fused_folder):
    pipeline = pipeline_of(fused_folder(centers=CENTERS * np.nan))
    with pytest.raises(RuntimeFault, match="not finite"):
        pipeline.run(np.zeros((*SIZE, 3), np.uint8))


@pytest.mark.parametrize(
    ("decode", "message"),
    [
        ({"flip_test": True}, "flip test"),
        ({"center_threshold": 0.5}, "center threshold"),
        ({"max_people": 5}, "4 cand"),
    ],
)
def test_settings_that_stand_in_the_graph_are_not_changed(fused_folder, decode, message):
    with pytest.raises(ValueError, match=message):
        pipeline_of(fused_folder(), **decode)


def test_other_adaptation_than_the_exported_one_is_refused(fused_folder):
    pipeline = pipeline_of(fused_folder())
    spec = pipeline.spec.model_copy(update={"adaptation": AdaptationSpec(level="none")})
    with pytest.raises(ValueError, match="adaptation"):
        FusedPipeline(spec, pipeline.trunk, None, pipeline.exported)


def test_graph_of_another_kind_is_refused(fused_folder):
    wrong = FUSED.model_copy(update={"trunk": "portable/trunk.onnx"})
    with pytest.raises(BundleError, match="the fused graph of bundle"):
        pipeline_of(fused_folder(variants=(wrong,)))


@pytest.mark.parametrize(("settings", "variant"), [({"max_people": 4}, "fused"), ({"max_people": 5}, "split")])
def test_detector_takes_two_graphs_for_more_people_than_the_fused_one_holds(fused_folder, settings, variant):
    with Detector(fused_folder(variants=(FUSED, SPLIT)), **settings) as detector:
        assert detector.info.variant == variant


def test_a_batch_gives_the_poses_of_single_calls(fused_folder):
    images = [
        np.full((128, 192, 3), 255, np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.full((64, 64, 3), 200, np.uint8),
    ]
    with Detector(fused_folder(), max_people=4) as detector:
        alone = [detector(image) for image in images]
        batch = detector.detect_batch(images)
        assert not detector.takes_batches
    assert [len(poses) for poses in batch] == [2, 0, 2]
    assert [poses.keypoints.tolist() for poses in batch] == [poses.keypoints.tolist() for poses in alone]
    assert [poses.scores.tolist() for poses in batch] == [poses.scores.tolist() for poses in alone]


def test_an_adjusted_detector_keeps_to_the_places_of_the_graph(fused_folder):
    image = np.full((*SIZE, 3), 255, np.uint8)
    with Detector(fused_folder(), max_people=4) as detector:
        assert np.allclose(detector.adjusted(max_people=2)(image).scores, [0.9])
        with pytest.raises(ValueError, match="4 candidates at most, not max_people 5"):
            detector.adjusted(max_people=5)


def test_detector_takes_two_graphs_for_a_flip_test(fused_folder):
    with Detector(fused_folder(variants=(FUSED, SPLIT)), flip_test=True, max_people=4) as detector:
        assert detector.info.variant == "split"


def test_self_test_runs_a_fused_variant(fused_folder, change_golden):
    from json import dumps

    import cv2

    from posesdk.bundle import GOLDEN_EXPECTED, GOLDEN_IMAGE

    folder = fused_folder()
    image = np.full((*SIZE, 3), 200, np.uint8)
    with Detector(folder, max_people=4) as detector:
        poses = detector(image)
    (folder / "golden").mkdir()
    assert cv2.imwrite(str(folder / GOLDEN_IMAGE), image)
    (folder / GOLDEN_EXPECTED).write_text(dumps(poses.to_dict()))
    change_golden(folder, lambda persons: None)
    checks = run_selftest(open_bundle(folder))
    assert [check.candidate.variant.name for check in checks] == ["fused"]
    assert checks[0].passed
    change_golden(folder, lambda persons: persons[0]["keypoints"][0].__setitem__(0, 50))
    change_golden(folder, lambda persons: persons[0].__setitem__("score", 0.2))
    assert not run_selftest(open_bundle(folder))[0].passed
