"""`Detector` on a small model whose people are bright spots.

Long, because each argument, source, fault and thread of the one public class has a test, on one set of fixtures.
"""

import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest

from posesdk import BundleError, Detector, RuntimeFault, SourceError
from posesdk.adapt import adapt_poses
from posesdk.bundle import open_bundle, write_manifest
from posesdk.context import local_context
from posesdk.decode import decode_center_offset
from posesdk.manifest import Variant
from posesdk.pipeline import STAGES
from posesdk.preprocess import make_letterbox
from posesdk.skeleton import COCO_17, Skeleton
from posesdk.spec import HeadSpec
from posesdk_runtimes.errors import DeviceUnavailableError
from posesdk_runtimes.registry import open_runtime

CENTERS = [(50, 60), (140, 70)]
BOTH = ("onnxruntime", "openvino")


@pytest.fixture
def picture(spots):
    return spots(CENTERS)


@pytest.fixture(scope="module")
def detector(tiny_bundle):
    with Detector(tiny_bundle, runtime="onnxruntime") as opened:
        yield opened


@pytest.mark.parametrize("runtime", BOTH)
def test_people_are_found_where_they_are_the_brightest_first(tiny_bundle, picture, runtime):
    pytest.importorskip(runtime, reason="backend is optional")
    with Detector(tiny_bundle, runtime=runtime) as detector:
        poses = detector(picture)
        assert detector.info.runtime == runtime
    assert len(poses) == 2
    middles = (poses.boxes[:, :2] + poses.boxes[:, 2:]) / 2
    assert np.abs(middles - CENTERS).max() < 6
    assert (poses.image_size, poses.model, poses.skeleton.name) == ((128, 192), "tiny", "coco-17")


def test_the_result_is_that_of_the_stages_one_by_one(tiny_folder, detector, picture):
    spec = open_bundle(tiny_folder).spec
    letterbox = make_letterbox(picture.shape[:2], spec.input, spec.frame)
    trunk, adapt = (
        open_runtime(tiny_folder / "portable" / f"{name}.onnx", runtime="onnxruntime") for name in ("trunk", "adapt")
    )
    maps = trunk.run({"image": letterbox.warp(picture)[None]})
    initial = decode_center_offset(maps["heatmaps"][0], maps["offsets"][0], spec)
    context = local_context(initial.keypoints, maps["embedding"][0], spec)
    attraction = adapt.run({"context": context})["attraction_maps"]
    keypoints, scores = adapt_poses(initial, maps["heatmaps"][0], attraction, spec)
    poses = detector.detect_all(picture)
    order = np.argsort(-scores.mean(axis=1))
    assert poses.keypoints.tolist() == letterbox.to_image(keypoints[order]).tolist()
    assert poses.keypoint_scores.tolist() == scores[order].tolist()
    assert poses.scores == pytest.approx(scores.mean(axis=1)[order])


def test_an_empty_frame_gives_no_poses(detector):
    poses = detector(np.zeros((90, 120, 3), np.uint8))
    assert len(poses) == 0
    assert poses.keypoints.shape == (0, 17, 2)
    assert set(poses.timing) == set(STAGES)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (64, 64)])
def test_frames_of_any_size_are_taken(detector, size):
    assert len(detector(np.full((*size, 3), 200, np.uint8)).keypoints.shape) == 3


def test_a_path_an_array_and_a_pil_image_give_the_same_poses(detector, picture, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="pillow is optional")
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture)
    expected = detector(picture)
    grey, alpha = picture[..., 0], cv2.cvtColor(picture, cv2.COLOR_BGR2BGRA)
    for frame in (path, str(path), image.fromarray(picture[..., ::-1]), grey, alpha):
        assert detector(frame).keypoints.tolist() == expected.keypoints.tolist()
    assert detector(path).frame.source == str(path)
    assert expected.frame.source is None


def test_red_and_blue_are_not_mixed_up(tmp_path, make_bundle, picture):
    with Detector(make_bundle(tmp_path / "red", colors=(3, 0, 0)), runtime="onnxruntime") as detector:
        red, blue = picture * np.uint8([0, 0, 1]), picture * np.uint8([1, 0, 0])
        assert len(detector(red)) == 2
        assert len(detector(blue)) == 0


def test_thresholds_are_the_models_unless_the_caller_names_others(tiny_bundle, picture):
    with Detector(tiny_bundle, runtime="onnxruntime") as plain:
        assert (plain.info.score_threshold, plain.info.keypoint_threshold) == (0.01, 0.02)
        best, second = plain(picture).scores
    between = float(best + second) / 2
    with Detector(tiny_bundle, runtime="onnxruntime", score_threshold=between, keypoint_threshold=0.3) as strict:
        poses = strict(picture)
        assert poses.scores.tolist() == [best]
        assert poses.visible.tolist() == (poses.keypoint_scores >= 0.3).tolist()
        assert not poses.visible.all()
        assert len(strict.detect_all(picture)) == 2


def test_only_candidates_that_can_reach_the_threshold_are_adapted(tiny_bundle, spots, monkeypatch):
    adapted = []

    def count(keypoints, embedding, spec):
        adapted.append(len(keypoints))
        return local_context(keypoints, embedding, spec)

    monkeypatch.setattr("posesdk.adapt.local_context", count)
    rng = np.random.default_rng(4)
    scattered = spots([(50, 60), (140, 70)]) // 2 + rng.integers(0, 120, (128, 192, 3)).astype(np.uint8)
    for threshold in (0.0, 0.02, 0.1, 0.15, 0.2, 1.0):
        with Detector(tiny_bundle, runtime="onnxruntime", score_threshold=threshold) as detector:
            for picture in (scattered, spots([(90, 60)]), spots([])):
                adapted.clear()
                found, everyone = detector(picture), detector.detect_all(picture)
                expected = everyone.above(threshold)
                assert len(found) == len(expected)
                assert np.allclose(found.keypoints, expected.keypoints, atol=1e-3)
                assert np.allclose(found.scores, expected.scores, atol=1e-6)
                assert sum(adapted) >= len(found) + len(everyone)
    assert adapted == []
    with Detector(tiny_bundle, runtime="onnxruntime", score_threshold=0.2) as detector:
        detector(scattered)
        detector.detect_all(scattered)
    assert adapted[0] < adapted[1]


def test_max_people_keeps_the_best(tiny_bundle, picture):
    with Detector(tiny_bundle, runtime="onnxruntime", max_people=1) as detector:
        assert len(detector(picture)) == 1
        assert detector(picture).boxes[0, 0] < 100
        assert detector.info.max_people == 1


def test_the_flip_test_averages_with_the_mirror_image(tmp_path, make_bundle, picture):
    mirror_even = np.zeros((17, 2))
    mirror_even[:, 1] = np.linspace(5, -5, 17)[[0, 1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11, 13, 13, 15, 15]]
    folder = make_bundle(tmp_path / "even", offsets=mirror_even)
    with Detector(folder, runtime="onnxruntime") as plain, Detector(folder, flip_test=True) as flipped:
        assert flipped.info.flip_test
        assert not plain.info.flip_test
        # The tiny model sees a mirror image as it sees the image, so the average changes nothing.
        assert flipped(picture).keypoints == pytest.approx(plain(picture).keypoints, abs=0.3)
    slanted = make_bundle(tmp_path / "slanted")
    with Detector(slanted, flip_test=True) as flipped, Detector(slanted) as plain:
        assert np.abs(flipped(picture).keypoints - plain(picture).keypoints).max() > 3


def test_a_stream_gives_poses_in_order_with_their_frames(detector, picture, tmp_path):
    cv2.imwrite(str(tmp_path / "2.png"), picture)
    cv2.imwrite(str(tmp_path / "10.png"), np.zeros_like(picture))
    results = list(detector.stream(tmp_path))
    assert [len(poses) for poses in results] == [2, 0]
    assert [poses.frame.index for poses in results] == [0, 1]
    assert [poses.frame.source for poses in results] == [str(tmp_path / "2.png"), str(tmp_path / "10.png")]
    assert [len(poses) for poses in detector.stream(iter([picture, picture]))] == [2, 2]


def test_a_stream_that_cannot_be_opened_fails_at_once(detector, tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        detector.stream(tmp_path / "none.jpg")


def test_a_bad_picture_of_a_stream_is_told_and_the_rest_are_done(detector, picture, tmp_path):
    (tmp_path / "1.png").touch()
    cv2.imwrite(str(tmp_path / "2.png"), picture)
    faults = []
    assert [len(poses) for poses in detector.stream(tmp_path, faults.append)] == [2]
    assert "1.png" in str(faults[0])


def test_several_threads_share_one_detector(tiny_bundle, spots):
    frames = [spots([(30 + 10 * index, 60)]) for index in range(12)]
    for runtime in BOTH:
        pytest.importorskip(runtime, reason="backend is optional")
        with Detector(tiny_bundle, runtime=runtime) as detector:
            alone = [detector(frame).keypoints.tolist() for frame in frames]
            with ThreadPoolExecutor(4) as pool:
                together = [poses.keypoints.tolist() for poses in pool.map(detector, frames * 5)]
        assert together == alone * 5


def test_a_detector_does_not_change(detector):
    for name in ("info", "score_threshold", "_pipeline"):
        with pytest.raises(AttributeError):
            setattr(detector, name, 1)
    with pytest.raises(AttributeError):
        del detector._info
    with pytest.raises(TypeError, match="each process makes its own"):
        pickle.dumps(detector)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"device": 0}, "device: expected a string, got 0"),
        ({"score_threshold": "high"}, "score_threshold: expected a number from 0 to 1, got 'high'"),
        ({"max_people": 1.5}, "max_people: expected a whole number, got 1.5"),
        ({"threads": "2"}, "threads: expected a whole number"),
    ],
)
def test_settings_of_another_type_are_refused_with_what_was_expected(tiny_bundle, settings, message):
    with pytest.raises(TypeError, match=message):
        Detector(tiny_bundle, **settings)


def test_settings_may_be_numbers_of_numpy(tiny_bundle):
    with Detector(tiny_bundle, score_threshold=np.float32(0.5), max_people=np.int64(3)) as detector:
        assert (detector.info.score_threshold, detector.info.max_people) == (0.5, 3)


def test_a_closed_detector_says_so(tiny_bundle, picture):
    with Detector(tiny_bundle) as detector:
        detector(picture)
    with pytest.raises(RuntimeFault, match="closed"):
        detector(picture)
    detector.close()


def test_a_missing_or_broken_bundle_is_a_bundle_error(tmp_path, make_bundle):
    with pytest.raises(BundleError, match=r"none\.posebundle"):
        Detector(tmp_path / "none.posebundle")
    folder = make_bundle(tmp_path / "tiny")
    (folder / "portable" / "adapt.onnx").write_bytes(b"changed")
    with pytest.raises(BundleError, match=r"adapt\.onnx"):
        Detector(folder)


def test_graphs_that_are_none_of_such_a_model_are_refused(tmp_path, make_bundle):
    swapped = Variant(name="x", runtime=("onnxruntime",), trunk="portable/adapt.onnx", adapt="portable/trunk.onnx")
    with pytest.raises(BundleError, match=r"the trunk graph of bundle .* takes \['context'\]"):
        Detector(make_bundle(tmp_path / "swapped", variants=(swapped,)))
    without = Variant(name="x", runtime=("onnxruntime",), trunk="portable/trunk.onnx")
    with pytest.raises(BundleError, match="no adapt graph"):
        Detector(make_bundle(tmp_path / "without", variants=(without,)))


@pytest.mark.parametrize("runtime", BOTH)
def test_graphs_of_another_size_than_the_manifest_says_are_refused(tmp_path, make_bundle, runtime):
    pytest.importorskip(runtime, reason="backend is optional")
    folder = make_bundle(tmp_path / "bundle")
    spec = open_bundle(folder).spec
    five = Skeleton(name="five", keypoints=COCO_17.keypoints[:5], edges=((0, 1),), sigmas=COCO_17.sigmas[:5])
    for change, message in (
        ({"skeleton": five}, r"has heatmaps of shape \[\?, 18, \?, \?\], the model of its manifest \[\?, 6, \?, \?\]"),
        ({"heads": HeadSpec(embedding=7)}, "has embedding of shape"),
        ({"adaptation": spec.adaptation.model_copy(update={"local_size": 7})}, "has context of shape"),
    ):
        changed = make_bundle(tmp_path / message[:14], model=spec.model_copy(update=change))
        with pytest.raises(BundleError, match=message):
            Detector(changed, runtime=runtime)


def test_a_manifest_that_asks_for_an_input_without_bounds_is_refused(tmp_path, make_bundle):
    folder = make_bundle(tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["input"]["side"] = 10**8
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"model\.input\.side"):
        Detector(folder)


def test_a_fixed_input_size_is_that_of_the_variant(tmp_path, make_bundle, picture):
    fixed = Variant(
        name="x",
        runtime=("onnxruntime",),
        trunk="portable/trunk.onnx",
        adapt="portable/adapt.onnx",
        input_size=(96, 128),
    )
    with Detector(make_bundle(tmp_path / "fixed", variants=(fixed,))) as detector:
        poses = detector(picture)
    middles = (poses.boxes[:, :2] + poses.boxes[:, 2:]) / 2
    assert np.abs(middles - CENTERS).max() < 6


def test_values_that_are_no_numbers_are_a_fault_not_an_empty_frame(tmp_path, make_bundle, picture):
    folder = make_bundle(tmp_path / "nan", offsets=np.full((17, 2), np.nan))
    with Detector(folder, runtime="onnxruntime") as detector, pytest.raises(RuntimeFault, match="offsets of the trunk"):
        detector(picture)


def test_a_device_asked_for_by_name_is_never_replaced(tiny_bundle):
    with pytest.raises(DeviceUnavailableError):
        Detector(tiny_bundle, device="npu")


def test_auto_falls_back_with_one_warning(tmp_path, make_bundle, monkeypatch, caplog):
    """A runtime that is there but cannot be opened is skipped; this one says that its device is gone."""
    import posesdk.pipeline

    def open_one(path, *, runtime, **settings):
        if runtime == "onnxruntime":
            raise DeviceUnavailableError("the device is gone")
        return open_runtime(path, runtime=runtime, **settings)

    pytest.importorskip("openvino", reason="backend is optional")
    monkeypatch.setattr(posesdk.pipeline, "open_runtime", open_one)
    with caplog.at_level(logging.WARNING), Detector(make_bundle(tmp_path / "tiny")) as detector:
        assert detector.info.runtime == "openvino"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "the device is gone" in caplog.text


def with_three_variants(folder):
    """The bundle with its graphs under three names, for the CPU and for CUDA."""
    manifest = open_bundle(folder).manifest
    changes = {"runtime": ("onnxruntime",), "devices": ("cpu", "cuda")}
    variants = tuple(manifest.variants[0].model_copy(update={"name": name, **changes}) for name in ("a", "b", "c"))
    write_manifest(folder, manifest.model_copy(update={"variants": variants}))
    return folder


def test_a_device_that_no_variant_can_use_is_told_once(tmp_path, make_bundle, monkeypatch, caplog):
    import posesdk.pipeline

    def open_one(path, *, device, **settings):
        if device != "cpu":
            raise DeviceUnavailableError("the device is gone")
        return open_runtime(path, device=device, **settings)

    monkeypatch.setattr(posesdk.pipeline, "open_runtime", open_one)
    monkeypatch.setattr("posesdk.variants._auto_devices", lambda known, names: ("cuda:0", "cpu"))
    folder = with_three_variants(make_bundle(tmp_path / "tiny"))
    with caplog.at_level(logging.WARNING), pytest.raises(DeviceUnavailableError, match="the device is gone"):
        Detector(folder, device="cuda")
    assert caplog.records == []
    with caplog.at_level(logging.WARNING), Detector(folder) as detector:
        assert (detector.info.variant, detector.info.device) == ("a", "cpu")
    assert [record.getMessage() for record in caplog.records] == [
        "not using a with onnxruntime on cuda:0: the device is gone"
    ]


def test_a_graph_whose_other_graph_cannot_be_opened_is_closed(tmp_path, make_bundle, monkeypatch):
    import posesdk.pipeline

    opened = []

    def open_one(path, **settings):
        if opened:
            raise DeviceUnavailableError("the device is gone")
        opened.append(open_runtime(path, **settings))
        return opened[0]

    monkeypatch.setattr(posesdk.pipeline, "open_runtime", open_one)
    with pytest.raises(DeviceUnavailableError):
        Detector(make_bundle(tmp_path / "tiny"), runtime="onnxruntime")
    (trunk,) = opened
    with pytest.raises(RuntimeFault, match="closed"):
        trunk.run({"image": np.zeros((1, 64, 64, 3), np.uint8)})


def test_a_variant_is_taken_by_its_name(tmp_path, make_bundle):
    folder = with_three_variants(make_bundle(tmp_path / "tiny"))
    with Detector(folder, variant="b") as detector:
        assert detector.info.variant == "b"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score_threshold": 1.5}, "score_threshold: expected a number from 0 to 1, got 1.5"),
        ({"keypoint_threshold": -1}, "keypoint_threshold: expected"),
        ({"max_people": 0}, "max_people: expected at least 1, got 0"),
        ({"threads": 0}, "threads: expected at least 1"),
        ({"runtime": "tensorflow"}, "expected a runtime of"),
        ({"device": "toaster"}, "expected a device"),
        ({"precision": "int4"}, "expected a precision of"),
        ({"variant": "cuda-fp16"}, "no variant 'cuda-fp16': it has"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_what_was_expected(tiny_bundle, settings, message):
    with pytest.raises(ValueError, match=message):
        Detector(tiny_bundle, **settings)
