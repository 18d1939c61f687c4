"""Several frames in one run: the same poses as one by one, and each graph run no more often than it has to."""

import numpy as np
import pytest

from posesdk.bundle import open_bundle
from posesdk.detector import Detector
from posesdk.pipeline import STAGES, Pipeline
from posesdk.poses import FrameInfo
from posesdk.stopwatch import Stopwatch
from posesdk.video import Frame
from posesdk_runtimes.errors import RuntimeFault
from posesdk_runtimes.registry import open_runtime

BOTH = ("onnxruntime", "openvino")


@pytest.fixture
def frames(spots):
    """Two, no, one and three people in pictures of two net sizes; the third is twice as large as the first."""
    return [
        spots([(50, 60), (140, 70)]),
        spots([]),
        np.repeat(np.repeat(spots([(90, 60)]), 2, axis=0), 2, axis=1),
        spots([(50, 60), (140, 70), (60, 200)], size=(260, 192)),
        spots([(30, 90)]),
    ]


class Counted:
    """A graph that notes the shapes it runs; with `fixed` it takes one element at a time."""

    def __init__(self, runtime, fixed=False):
        self.runtime, self.fixed, self.shapes = runtime, fixed, []
        self.outputs = runtime.outputs

    @property
    def inputs(self):
        if not self.fixed:
            return self.runtime.inputs
        (port,) = self.runtime.inputs
        return (type(port)(port.name, (1, *port.shape[1:]), port.dtype),)

    def run(self, feeds):
        (tensor,) = feeds.values()
        assert len(tensor) == 1 or not self.fixed
        self.shapes.append(tensor.shape)
        return self.runtime.run(feeds)

    def close(self):
        self.runtime.close()


@pytest.fixture
def counted(tiny_folder):
    def make(fixed=False, **decode):
        graphs = (
            Counted(open_runtime(tiny_folder / "portable" / f"{name}.onnx", runtime="onnxruntime"), fixed)
            for name in ("trunk", "adapt")
        )
        spec = open_bundle(tiny_folder).spec
        return Pipeline(spec.model_copy(update={"decode": spec.decode.model_copy(update=decode)}), *graphs)

    return make


def assert_alike(batch, alone):
    assert len(batch) == len(alone)
    for together, single in zip(batch, alone, strict=True):
        assert len(together) == len(single)
        assert np.allclose(together.keypoints, single.keypoints, rtol=0, atol=1e-4)
        assert np.allclose(together.keypoint_scores, single.keypoint_scores, rtol=0, atol=1e-6)
        assert (together.image_size, together.frame) == (single.image_size, single.frame)


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("runtime", BOTH)
def test_a_batch_gives_the_poses_of_single_calls(tiny_bundle, frames, runtime, flip_test):
    pytest.importorskip(runtime, reason="backend is optional")
    with Detector(tiny_bundle, runtime=runtime, flip_test=flip_test) as detector:
        batch = detector.detect_batch(frames)
        assert_alike(batch, [detector(frame) for frame in frames])
    assert [len(poses) for poses in batch] == [2, 0, 1, 3, 1]


@pytest.fixture
def images(pictures):
    """BGR pictures of three sizes, in which converted models find people."""
    return [np.ascontiguousarray(picture[0, :, :, ::-1]) for picture in pictures(6)]


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("runtime", BOTH)
def test_a_converted_model_finds_the_same_in_a_batch(every_bundle, images, runtime, flip_test):
    with Detector(every_bundle, runtime=runtime, precision="fp32", flip_test=flip_test) as detector:
        alone = [detector(image) for image in images]
        assert sum(len(poses) for poses in alone) > 6
        assert_alike(detector.detect_batch(images), alone)


def test_a_converted_model_is_adjusted_without_opening_it_again(every_bundle, images):
    with Detector(every_bundle, runtime="onnxruntime") as plain:
        everyone = [plain.detect_all(image) for image in images]
        between = float(np.median(np.concatenate([poses.scores for poses in everyone])))
        settings = {"score_threshold": between, "keypoint_threshold": 0.3, "max_people": 3}
        with Detector(every_bundle, runtime="onnxruntime", **settings) as opened:
            adjusted = plain.adjusted(**settings)
            assert adjusted.info == opened.info
            assert_alike([adjusted(image) for image in images], [opened(image) for image in images])
        sure = [plain.adjusted(score_threshold=between)(image) for image in images]
    assert_alike(sure, [poses.above(between) for poses in everyone])
    assert 0 < sum(map(len, sure)) < sum(map(len, everyone))


def test_frames_of_one_net_size_are_one_run_of_the_trunk_and_all_people_one_of_the_other_graph(counted, frames):
    pipeline = counted()
    estimates = pipeline.run_batch(frames)
    assert [shape[0] for shape in pipeline.trunk.shapes] == [4, 1]
    assert [shape[0] for shape in pipeline.adapt.shapes] == [sum(len(one.scores) for one in estimates)]


def test_a_flip_test_doubles_the_run_of_the_trunk(counted, frames):
    pipeline = counted(flip_test=True)
    pipeline.run_batch(frames)
    assert [shape[0] for shape in pipeline.trunk.shapes] == [8, 2]


def test_where_nobody_is_the_second_graph_does_not_run(counted, spots):
    pipeline = counted()
    assert [len(one.scores) for one in pipeline.run_batch([spots([])] * 2)] == [0, 0]
    assert pipeline.adapt.shapes == []


def test_graphs_with_a_fixed_batch_run_one_by_one_and_find_the_same(counted, frames):
    fixed, free = counted(fixed=True), counted()
    assert (fixed.takes_batches, free.takes_batches) == (False, True)
    for one, other in zip(fixed.run_batch(frames), free.run_batch(frames), strict=True):
        assert np.allclose(one.keypoints, other.keypoints, rtol=0, atol=1e-4)
    assert len(fixed.trunk.shapes) == len(frames)


def test_frames_may_be_of_every_kind_and_keep_where_they_come_from(tiny_bundle, spots, tmp_path):
    import cv2

    picture = spots([(50, 60), (140, 70)])
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), picture)
    info = FrameInfo("camera", 7, 1.5)
    with Detector(tiny_bundle) as detector:
        found = detector.detect_batch([picture, picture[..., 0], path, Frame(picture, info)])
    assert [poses.frame for poses in found] == [FrameInfo(), FrameInfo(), FrameInfo(str(path)), info]
    assert {poses.keypoints.tobytes() for poses in found} == {found[0].keypoints.tobytes()}


def test_no_frames_give_no_poses_and_a_single_one_is_not_taken_for_several(tiny_bundle, spots):
    with Detector(tiny_bundle) as detector:
        assert detector.detect_batch([]) == []
        for single in (spots([]), "a.png", Frame(spots([]), FrameInfo())):
            with pytest.raises(TypeError, match="put a single frame into a list"):
                detector.detect_batch(single)


def test_shares_of_a_lap_are_its_time(monkeypatch):
    times = iter([1.0, 1.003, 1.009])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch(3)
    watch.lap("decode", 1)
    watch.lap("adapt", 0, 0, 2)
    assert [laps["decode"] for laps in watch.laps] == pytest.approx([0, 3, 0])
    assert [laps["adapt"] for laps in watch.laps] == pytest.approx([4, 0, 2])


def test_a_frame_is_charged_its_part_of_the_graphs_and_what_is_its_own(tiny_bundle, frames):
    with Detector(tiny_bundle) as detector:
        timings = [poses.timing for poses in detector.detect_batch(frames)]
    assert all(set(timing) == set(STAGES) for timing in timings)
    assert timings[0]["trunk"] == timings[1]["trunk"] == timings[2]["trunk"] == timings[4]["trunk"]
    assert timings[0]["adapt"] == pytest.approx(2 * timings[2]["adapt"])
    assert timings[1]["adapt"] == timings[1]["context"] == 0
    assert timings[2]["preprocess"] != timings[0]["preprocess"]


def test_net_size_is_that_of_the_image_that_the_trunk_gets(tiny_bundle, counted, frames):
    pipeline = counted()
    pipeline.run_batch(frames)
    with Detector(tiny_bundle) as detector:
        sizes = [detector.net_size(frame.shape[:2]) for frame in frames]
    assert {shape[1:3] for shape in pipeline.trunk.shapes} == set(sizes)
    assert sizes[0] == sizes[2] != sizes[3]


def test_an_adjusted_detector_is_one_that_was_opened_with_these_settings(tiny_bundle, spots):
    picture = spots([(50, 60), (140, 70)])
    with Detector(tiny_bundle) as plain:
        between = float(plain(picture).scores.mean())
        settings = {"score_threshold": between, "keypoint_threshold": 0.3, "max_people": 5}
        adjusted = plain.adjusted(**settings)
        with Detector(tiny_bundle, **settings) as opened:
            assert adjusted.info == opened.info
            ours, theirs = adjusted(picture), opened(picture)
        assert (len(ours), len(plain(picture))) == (1, 2)
        assert ours.keypoints.tolist() == theirs.keypoints.tolist()
        assert ours.visible.tolist() == theirs.visible.tolist()
        assert len(plain.adjusted(max_people=1)(picture)) == 1
        assert adjusted.adjusted(score_threshold=0).info.keypoint_threshold == 0.3
        assert plain.adjusted().info == plain.info


def test_closing_an_adjusted_detector_closes_the_graphs_of_all(tiny_bundle, spots):
    detector = Detector(tiny_bundle)
    detector.adjusted(max_people=1).close()
    with pytest.raises(RuntimeFault, match="closed"):
        detector(spots([]))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"score_threshold": 1.5}, ValueError, "score_threshold: expected a number from 0 to 1, got 1.5"),
        ({"keypoint_threshold": "low"}, TypeError, "keypoint_threshold: expected a number"),
        ({"max_people": 0}, ValueError, "max_people: expected at least 1, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny_bundle, settings, error, message):
    with Detector(tiny_bundle) as detector, pytest.raises(error, match=message):
        detector.adjusted(**settings)
