"""What turns the outputs of published models into poses: outputs made by hand give the people they were made of."""

import json

import cv2
import numpy as np
import pytest

from peers import plots
from peers.boxes import suppress
from peers.crowds import make_crowd, measure_growth
from peers.finder import STAGES, Found, stream_in_threads
from peers.fitting import fit
from peers.latency import Latency, measure_latency
from peers.movenet import MoveNet, crop_of
from peers.ours import open_ours
from peers.personlab import EDGES, STRIDE, decode_people, rescored
from peers.plots import Point
from peers.posenet import PoseNet
from peers.rate import Rate, measure_rates
from peers.rtmdet import decode_boxes
from peers.tables import growth_table, ratio_lines
from peers.yolo import Yolo, decode_yolo, kept_cells, resize_yolo
from posesdk.images import read_image
from posesdk.oks import oks
from posesdk.skeleton import COCO_17

MAP = (31, 41)
BOXES = np.array([[0, 0, 10, 10], [0, 1, 10, 11], [20, 0, 30, 10], [0, 5, 10, 15]], np.float32)


def standing(x, y, height):
    """Keypoints (17, 2) of somebody who stands upright, no two of them at the same place."""
    rng = np.random.default_rng(int(x))
    return np.array([x, y]) + height * (rng.random((17, 2)) - 0.5) * [0.5, 1]


def maps_of(people):
    """PoseNet's maps of people (N, 17, 2): every cell points to the keypoints of the nearest one."""
    rows, columns = np.mgrid[: MAP[0], : MAP[1]]
    cells = np.stack([rows, columns], axis=2) * float(STRIDE)  # (h, w, 2) y, x
    heatmaps, short, mid = np.full((*MAP, 17), -9.0), np.zeros((*MAP, 34)), np.zeros((*MAP, 64))
    places = people[..., ::-1]  # y, x
    for kind in range(17):
        distance = np.linalg.norm(cells[:, :, None] - places[:, kind], axis=3)  # (h, w, N)
        nearest = distance.argmin(axis=2)
        heatmaps[..., kind] = 4 - distance.min(axis=2) / STRIDE
        offset = places[nearest, kind] - cells
        short[..., kind], short[..., 17 + kind] = offset[..., 0], offset[..., 1]
        for edge, (inner, outer) in enumerate(EDGES):
            for source, target, first in ((inner, outer, edge), (outer, inner, 32 + edge)):
                if source == kind:
                    way = (places[:, target] - places[:, source])[nearest]
                    mid[..., first], mid[..., 16 + first] = way[..., 0], way[..., 1]
    return tuple(values.astype(np.float32) for values in (heatmaps, short, mid))


def test_decoder_of_posenet_gives_the_people_that_its_maps_were_made_of():
    people = np.stack([standing(120, 200, 300), standing(330, 240, 260), standing(540, 230, 320)])
    keypoints, scores = decode_people(*maps_of(people), floor=0.5)
    assert len(keypoints) == 3
    order = np.argsort(keypoints[:, :, 0].mean(axis=1))
    np.testing.assert_allclose(keypoints[order, :, :2], people, atol=0.5)
    assert (np.diff(scores) <= 0).all()
    assert scores.min() > 0.9


def test_decoder_of_posenet_finds_nobody_where_no_heatmap_reaches_the_floor():
    maps = maps_of(np.stack([standing(120, 200, 300)]))
    keypoints, scores = decode_people(maps[0] - 20, *maps[1:], floor=0.5)
    assert keypoints.shape == (0, 17, 3)
    assert scores.shape == (0,)


def test_person_of_posenet_whose_keypoints_are_another_ones_loses_their_score():
    points = np.stack([standing(200, 240, 300), standing(420, 240, 300)]).astype(np.float32)
    points[0, :5] = points[1, :5] + 10  # a shared head: five keypoints of 17 within 20 px
    certain = np.stack([np.full(17, 0.6), np.full(17, 0.8)]).astype(np.float32)
    keypoints, scores = rescored(points, certain, 0.3)
    np.testing.assert_allclose(scores, [0.8, 0.6 * 12 / 17], rtol=1e-6)
    np.testing.assert_array_equal(keypoints[..., 1::-1], points[::-1])
    assert len(rescored(points, certain, 0.5)[1]) == 1


def test_box_that_overlaps_a_better_one_is_left_out():
    kept = suppress(BOXES, np.array([0.5, 0.9, 0.7, 0.8], np.float32), overlap=0.5, most=10)
    assert kept.tolist() == [1, 3, 2]  # shared parts: 0 and 1 9/11, 1 and 3 6/14
    assert suppress(BOXES, np.array([0.5, 0.9, 0.7, 0.8], np.float32), overlap=0.5, most=2).tolist() == [1, 3]
    assert suppress(BOXES[:0], np.zeros(0, np.float32), overlap=0.5, most=2).tolist() == []


def test_decoder_of_yolo_gives_each_person_once_with_its_keypoints():
    points = np.arange(3 * 51, dtype=np.float32).reshape(3, 51)
    boxes = np.array([[50, 60, 20, 40], [51, 60, 20, 40], [200, 60, 20, 40]], np.float32)  # middle and size
    output = np.zeros((56, 100), np.float32)
    output[:, [5, 6, 70]] = np.concatenate([boxes, [[0.6], [0.8], [0.3]], points], axis=1).T
    keypoints, scores = decode_yolo(output, 0.25)
    np.testing.assert_allclose(scores, [0.8, 0.3])
    np.testing.assert_array_equal(keypoints, points[1:].reshape(2, 17, 3))
    assert len(decode_yolo(output, 0.9)[1]) == 0


@pytest.mark.parametrize("size", [(640, 640), (320, 320), (192, 320)])
def test_cells_that_a_smaller_input_of_yolo_keeps_are_those_of_its_own_grid(size):
    def grid(height, width):
        levels = [np.mgrid[: height // s, : width // s].reshape(2, -1).T * s + s / 2 for s in (8, 16, 32)]
        return np.concatenate(levels)

    np.testing.assert_array_equal(grid(640, 640)[kept_cells(size)], grid(*size))


def test_graph_with_its_cells_written_into_it_runs_at_another_size():
    openvino = pytest.importorskip("openvino", reason="the graph is OpenVINO's")
    ops = openvino.opset13
    image = ops.parameter([1, 3, 640, 640], np.float32)
    levels = [
        ops.reshape(ops.avg_pool(image, [s, s], [0, 0], [0, 0], [s, s], False), np.array([1, 3, -1]), False)
        for s in (8, 16, 32)
    ]
    cells = [(640 // s) ** 2 for s in (8, 16, 32)]
    strides = np.repeat([8.0, 16.0, 32.0], cells).astype(np.float32)[None, None]
    flat = ops.reshape(ops.concat(levels, 2), np.array([1, 3, sum(cells)]), False)
    model = resize_yolo(openvino.Model([ops.multiply(flat, strides)], [image]), (64, 96))
    picture = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    found = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([picture])[0]
    expected = [
        picture.reshape(1, 3, 64 // s, s, 96 // s, s).mean(axis=(3, 5)).reshape(1, 3, -1) * s for s in (8, 16, 32)
    ]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=2), rtol=1e-4)


def test_decoder_of_rtmdet_measures_boxes_from_the_corners_of_cells():
    maps = [np.full((side, side, 5), -9.0, np.float32) for side in (40, 20, 10)]
    maps[0][3, 7] = [2, 10, 11, 12, 13]
    maps[2][5, 1] = [0, 30, 160, 40, 100]
    boxes, scores = decode_boxes(maps, 0.3)
    np.testing.assert_allclose(boxes, [[56 - 10, 24 - 11, 56 + 12, 24 + 13], [2, 0, 72, 260]])
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-2)), 0.5], rtol=1e-5)


def test_crop_of_a_box_is_the_square_around_it():
    matrix = crop_of(np.array([100, 50, 140, 210], float))
    corners = matrix[:, :2] @ np.array([[120, 120, 40], [130, 210, 130]]) + matrix[:, 2:]
    np.testing.assert_allclose(corners, [[96, 96, 0], [96, 192, 96]], atol=1e-6)


@pytest.mark.parametrize("centered", [True, False])
def test_points_of_a_fitted_image_come_back(centered):
    image = np.zeros((60, 120, 3), np.uint8)
    image[28:32, 88:92] = 255  # around (89.5, 29.5)
    canvas, placed = fit(image, (90, 90), border=114, centered=centered)
    rows, columns = np.nonzero(canvas[..., 0] > 150)
    back = placed.to_image(np.array([columns.mean(), rows.mean()], np.float32))
    np.testing.assert_allclose(back, [89.5, 29.5], atol=0.8)  # published models leave half a pixel out
    assert (canvas == 114).all(axis=2).sum() == 90 * 45


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: Yolo(folder, 640, threads=1), id="yolo-640"),
        pytest.param(lambda folder: Yolo(folder, 320, threads=1), id="yolo-320"),
        pytest.param(lambda folder: Yolo(folder, 320, threads=1, rectangle=True), id="yolo-320-rectangle"),
        pytest.param(lambda folder: PoseNet(folder, threads=1), id="posenet"),
        pytest.param(lambda folder: MoveNet(folder, threads=1), id="movenet"),
    ],
)
def test_published_model_finds_the_large_person_of_a_photo(shared, make):
    pytest.importorskip("openvino", reason="published models run on OpenVINO")
    pytest.importorskip("ai_edge_litert", reason="published models run on LiteRT")
    tree = json.loads(shared("data", "coco_eval", "keypoints.json").read_text())
    complete = [person for person in tree["annotations"] if person["num_keypoints"] == 17]
    person = max(complete, key=lambda entry: entry["area"])
    name = next(entry["file_name"] for entry in tree["images"] if entry["id"] == person["image_id"])
    image = read_image(shared("data", "coco_eval", "images", name), oriented=False)
    found = make(shared("peers")).poses(image)
    labels = np.array(person["keypoints"], float).reshape(1, 17, 3)
    similarity = oks(found.keypoints[..., :2], labels, [person["area"]], COCO_17.sigmas)
    assert similarity.max() > 0.7
    assert set(found.timing) == {"preprocess", "network", "decode"}
    assert min(found.timing.values()) > 0


def person_picture():
    return np.random.default_rng(0).integers(0, 100, (300, 100, 3), dtype=np.uint8)


@pytest.mark.parametrize("count", [1, 2, 5, 17, 30])
def test_crowd_has_as_many_people_as_wanted_beside_each_other(count):
    crowd = make_crowd(person_picture(), count)
    covered = np.zeros(crowd.image.shape[:2], int)
    for left, top, right, bottom in crowd.boxes.astype(int):
        covered[top:bottom, left:right] += 1
    assert len(crowd.boxes) == count
    assert covered.max() == 1
    np.testing.assert_array_equal(covered == 0, (crowd.image == 114).all(axis=2))
    sides = crowd.boxes[:, 2:] - crowd.boxes[:, :2]
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], 3, rtol=0.05)


class Told:
    """Finds as many people as it is told, and writes down when it is called."""

    def __init__(self, title, people, calls):
        self.title, self._people, self._calls = title, people, calls

    def poses(self, image, *, everyone=False):
        self._calls.append((self.title, int(image[0, 0, 0])))
        return Found(np.zeros((self._people, 17, 3)), np.zeros(self._people), dict.fromkeys(STAGES, 1.0))

    def stream(self, video):
        return stream_in_threads(self, video, 2)


def test_models_take_turns_of_two_calls_at_every_picture():
    calls = []
    works = {name: Told(name, people, calls).poses for name, people in (("a", 1), ("b", 2))}
    images = [np.full((2, 2, 3), number, np.uint8) for number in (7, 8)]
    measured = measure_latency(works, images, 2, lambda percent: None)
    orders = {7: ["a", "a", "b", "b"], 8: ["b", "b", "a", "a"]}
    assert calls == 2 * [(name, number) for number, names in orders.items() for name in names]
    assert {name: len(latency.values["total"]) for name, latency in measured.items()} == {"a": 4, "b": 4}
    assert measured["b"].people == 2
    assert measured["a"].percentile(95, "network") == 1.0
    assert 0 < measured["a"].least <= measured["a"].percentile(50)


def test_frames_of_a_video_are_counted_singly_and_overlapped(tmp_path):
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 32))
    for _ in range(6):
        writer.write(np.zeros((32, 32, 3), np.uint8))
    writer.release()
    calls = []
    rates = measure_rates({"a": Told("a", 3, calls)}, path, 4, 2, lambda text: None)
    assert rates["a"].people == [3.0, 3.0]
    assert len(rates["a"].single) == len(rates["a"].streamed) == 2
    assert len(calls) >= 3 + 2 * (4 + 4)  # before it counts, one by one, and overlapped, which works ahead
    assert measure_rates({"a": Told("a", 0, calls)}, path, 100, 1, lambda text: None)["a"].people == [0.0]


def test_ratio_is_the_median_of_those_of_the_rounds():
    finders = {name: Told(name, 1, []) for name in ("ours", "theirs")}
    rates = {"ours": Rate([10, 20, 90], [40, 60, 80], [1]), "theirs": Rate([10, 10, 10], [20, 20, 10], [1])}
    assert ratio_lines(finders, rates, ["ours"]) == ["ours / theirs: 3.00 overlapped, 2.00 one by one"]


def test_growth_tells_what_a_person_costs_and_who_was_missed():
    def calls(least, people):
        return Latency({"total": np.array([least, least + 1, least + 2]), "people": np.full(3, people)})

    table = growth_table({"a": Told("A", 1, [])}, {1: {"a": calls(10, 1)}, 11: {"a": calls(15, 4)}})
    assert table.rows == (("A", "11.00", "16.00 (4)", "0.500"),)


def test_titles_of_the_plot_cover_no_mark_and_no_other_title(tmp_path, monkeypatch):
    boxes, marks = [], []
    points = [Point(f"model number {i}", 10 + i, 20, 0.3 + 0.004 * i, ours=i < 2) for i in range(4)]

    def note(figure, path):
        (axes,) = figure.axes
        boxes.extend(text.get_window_extent() for text in axes.texts)
        marks.extend(axes.transData.transform((point.milliseconds, point.accuracy)) for point in points)
        figure.savefig(path)

    monkeypatch.setattr(plots, "_write", note)
    plots.plot_tradeoff(points, "note", tmp_path / "plot.png")
    assert len(boxes) == 4
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert not any(box.contains(*mark) for box in boxes for mark in marks)
    assert cv2.imread(str(tmp_path / "plot.png")) is not None


def test_bundle_is_opened_in_the_precision_at_the_end_of_its_name(dual_bundle):
    finder = open_ours(f"{dual_bundle}:fp32", threads=1)
    image = np.random.default_rng(0).integers(0, 256, (96, 120, 3), dtype=np.uint8)
    found, expected = finder.poses(image, everyone=True), finder.detector.detect_all(image)
    assert finder.detector.info.precision == "fp32"
    assert finder.title == "tiny-dual fp32"
    np.testing.assert_array_equal(found.keypoints[..., :2], expected.keypoints)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert set(found.timing) == set(STAGES)
    assert all(value >= 0 for value in found.timing.values())
    with pytest.raises(ValueError, match="int8"):
        open_ours(f"{dual_bundle}:int8", threads=1)


def test_growth_shows_every_model_every_crowd_in_turns():
    calls = []

    class Counting(Told):
        def poses(self, image, *, everyone=False):
            grey = (image == 114).all(axis=2)
            calls.append((self.title, round(float(grey.mean()), 3)))
            return super().poses(image)

    finders = {title: Counting(title, 3, []) for title in ("a", "b")}
    growth = measure_growth(finders, person_picture(), [1, 4], 2, lambda percent: None)
    assert {count: sorted(found) for count, found in growth.items()} == {1: ["a", "b"], 4: ["a", "b"]}
    assert len(set(calls)) == 4  # two models, two pictures
    assert all(calls.count(call) == 4 for call in set(calls))  # two rounds of two calls
    assert growth[4]["b"].people == 3
