"""The samples that pass poses on to an alarm, and read GStreamer's own metadata."""

import functools
import inspect
import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from posesdk.gst import why_unavailable
from sample_programs import CLIP, ENVIRONMENT, LIMIT, SAMPLES, fall_lines, line_of, person_at, run

reason = why_unavailable()
needs_gstreamer = pytest.mark.skipif(reason is not None, reason=reason or "")


def _alarms(lines: list[dict], *words: str) -> list[dict]:
    done = run("fall_alarm", *words, lines=lines)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_fall_gives_one_alarm_with_its_start_and_end():
    fall, over = _alarms(fall_lines())
    assert (fall["event"], fall["end"], fall["source"]) == ("fall", None, "cam0")
    assert (over["event"], over["person"]) == ("over", fall["person"])
    assert fall["start"] == over["start"] == pytest.approx(1.9)
    assert over["end"] == pytest.approx(5.9)
    points = person_at(90.0)[:, :2]
    assert fall["box"] == pytest.approx([*points.min(axis=0), *points.max(axis=0)])


@pytest.mark.parametrize("angle", [-120, -90, -60, 60, 90, 120])
def test_body_that_lies_in_the_picture_is_told_from_one_that_stands(load, angle):
    lies = load("fall_alarm").lies
    assert lies(_points(person_at(angle)))
    assert not lies(_points(person_at(angle / 10)))


def _points(person: np.ndarray) -> dict:
    return {index: (x, y) for index, (x, y, _) in enumerate(person.tolist())}


@needs_gstreamer
def test_alarm_reads_what_the_element_writes(clip, converted_bundle):
    pipeline = (
        f'filesrc location="{clip}" ! decodebin ! videoconvert ! logocappose mode=sync model="{converted_bundle}" '
        "! logocapposejson ! fdsink"
    )
    launch = [sys.executable, "-c", "from posesdk.cli import main; main()", "gst", "launch", "-q", pipeline]
    with subprocess.Popen(launch, stdout=subprocess.PIPE, env=ENVIRONMENT) as source:
        done = subprocess.run(
            [sys.executable, str(SAMPLES / "fall_alarm.py")],
            stdin=source.stdout, capture_output=True, text=True, timeout=LIMIT, env=ENVIRONMENT, check=False,
        )  # fmt: skip
    assert (source.returncode, done.returncode) == (0, 0)
    assert done.stderr.startswith(f"{CLIP} frames, ")


VIDEOS = {  # who is in them, and how many; nobody lies
    "empty_room_540p25": 0, "group_exercise_720p25": 4, "one_by_one_432p10": 0.5, "two_children_540p30": 1,
    "two_people_1080p28": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def seen(shared) -> Callable[[str], list[dict]]:
    """`seen("two_people_1080p28")`: what the default model sees in a video, at least 2 frames a second, as lines."""
    from posesdk import Detector

    @functools.lru_cache
    def look(name: str) -> list[dict]:
        import cv2

        path = shared("data", "videos", f"{name}.mp4")
        capture, lines = cv2.VideoCapture(str(path)), []
        rate, index = capture.get(cv2.CAP_PROP_FPS), 0
        while capture.grab():
            if index % int(rate / 2) == 0:
                poses = detector(capture.retrieve()[1])
                lines.append({**poses.to_dict(), "source": name, "pts": index / rate})
            index += 1
        return lines

    with Detector(threads=1) as detector:
        yield look


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEOS)
def test_videos_in_which_nobody_lies_raise_no_alarm(seen, name):
    lines = seen(name)
    assert np.mean([len(line["persons"]) for line in lines]) >= VIDEOS[name]
    assert _alarms(lines) == []


def test_real_people_who_are_turned_to_the_floor_raise_one_alarm_each(seen):
    standing = seen("two_people_1080p28")[0]
    people = [np.array(person["keypoints"]) for person in standing["persons"]]
    assert len(people) == 2
    fallen = []
    for side, person in zip((1, -1), people, strict=True):
        feet = person[15:17, :2].mean(axis=0)
        turned = (person[:, :2] - feet) @ np.array([[0, -side], [side, 0]]) + feet
        fallen.append(np.column_stack([turned, person[:, 2]]))
    events = _alarms([line_of(t, people if t < 3 else fallen) for t in np.arange(0, 8, 0.1)])
    assert [event["event"] for event in events] == ["fall", "fall", "over", "over"]
    assert all(2.89 < event["start"] < 3.01 for event in events)


def test_bending_down_and_sitting_are_no_falls(load):
    bent, seated = person_at(), person_at()
    bent[:11, :2] = (bent[:11, :2] - [400, 300]) @ np.array([[0, 1], [-1, 0]]) + [400, 300]  # above the hips, forward
    seated[13:15, 1] = seated[11:13, 1]
    seated[13:15, 0] += 50
    seated[15:17, :2] = seated[13:15, :2] + [5, 45]
    on_floor = seated.copy()
    on_floor[15:17, :2] = seated[13:15, :2] + [45, 0]
    lies = load("fall_alarm").lies
    assert [lies(_points(person)) for person in (bent, seated, on_floor)] == [False, False, False]


def test_rule_has_no_more_than_forty_lines(load):
    module = load("fall_alarm")
    assert sum(len(inspect.getsource(part).splitlines()) for part in (module.lies, module.Fall)) <= 40


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_lying_for_a_moment_is_no_fall(seconds):
    assert _alarms(fall_lines(up=2 + seconds)) == []


def test_fall_is_told_when_half_of_the_keypoints_and_frames_are_missing():
    lines = fall_lines(step=0.05)
    rng = np.random.default_rng(0)
    for line in lines:
        for keypoint in line["persons"][0]["keypoints"]:
            if rng.random() < 0.5:
                keypoint[2] = 0.01
        if rng.random() < 0.5:
            line["persons"] = []
    assert [event["event"] for event in _alarms(lines)] == ["fall", "over"]


def test_two_people_are_followed_apart():
    lines = [line_of(t, [person_at(place=(100, 300)), person_at(90.0 if t > 2 else 0.0)][:: -1 if n % 2 else 1])
             for n, t in enumerate(np.arange(0, 6, 0.1))]  # fmt: skip
    fall, over = _alarms(lines)
    assert fall["person"] == over["person"]
    assert fall["box"][0] > 200


def test_stale_poses_are_not_judged_again():
    stale = [line_of(0.0, [person_at(90.0)], fresh=False, age_ns=round(t * 1e9)) for t in np.arange(0, 9, 0.1)]
    assert _alarms(stale) == []


def test_poses_of_a_live_stream_are_judged_once_though_each_is_late():
    """Mode skip: no frame carries its own poses, and some carry those of the frame before once more."""
    late = [line_of(line["pts"], [], fresh=False, age_ns=10**8) | {"persons": line["persons"]} for line in fall_lines()]
    assert _alarms([line for line in late for _ in range(2)]) == _alarms(fall_lines())


def test_two_cameras_are_judged_apart_and_a_camera_that_starts_again_too():
    lines = [{**line, "source": name} for line in fall_lines(until=5.0) for name in ("cam0", "cam1")]
    events = _alarms(lines + [{**line, "source": "cam0"} for line in fall_lines()])
    assert [(event["source"], event["event"]) for event in events] == [
        ("cam0", "fall"), ("cam1", "fall"), ("cam0", "over"), ("cam0", "fall"), ("cam0", "over"), ("cam1", "over")
    ]  # fmt: skip


def test_alarm_outlives_lines_that_it_cannot_use():
    lines = fall_lines()
    picture = {key: value for key, value in lines[0].items() if key != "stream"} | {"pts": None}
    lines[20:20] = ["a string", {"v": 1}, picture, {**lines[0], "skeleton": "crowdpose-14"}]
    done = run("fall_alarm", lines=lines)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["fall", "over"]
    assert done.stderr.count("is left out") == 4
    assert "skeleton coco-17 and a time" in done.stderr


def test_alarm_fails_where_no_line_has_poses():
    assert run("fall_alarm", lines=[{"v": 1}]).returncode == 1
    assert "cannot read /nowhere" in run("fall_alarm", "/nowhere").stderr


@needs_gstreamer
def test_people_in_gstreamers_own_metadata_are_those_of_the_json(clip, converted_bundle):
    from posesdk.gst import analytics

    done = run("analytics_interop", str(clip), "--model", str(converted_bundle))
    assert done.returncode == 0, done.stderr
    assert "all equal the JSON" in done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert [report["index"] for report in reports] == list(range(CLIP))
    assert max(len(report["regions"]) for report in reports) > 1
    if (missing := analytics.why_unavailable()) is None:
        assert all(report["detections"] == report["regions"] for report in reports)
    else:
        assert f"no GstAnalytics: {missing}" in done.stderr


@needs_gstreamer
def test_boxes_in_whole_pixels_hold_their_people(load):
    whole = load("analytics_interop").whole
    people = [[10.4, 20.6, 29.5, 41.0], [-7.2, 100.0, 30.0, 500.0], [-20.0, 5.0, -9.0, 50.0]]
    data = {"width": 320, "height": 240, "persons": [{"box": box} for box in people]}
    assert whole(data) == [[10, 21, 20, 21], [0, 100, 31, 140]]  # the third is outside


@needs_gstreamer
def test_difference_to_the_json_is_told(clip, converted_bundle):
    """The comparison can fail: where the JSON says a box that is a pixel off, every frame with people differs."""
    code = f"""
import sys
sys.path.insert(0, {str(SAMPLES)!r})
import analytics_interop as sample
right = sample.whole
sample.whole = lambda data: [[x + 1, *rest] for x, *rest in right(data)]
sys.argv[1:] = [{str(clip)!r}, "--model", {str(converted_bundle)!r}]
sys.exit(sample.main())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT, env=ENVIRONMENT, check=False
    )
    assert done.returncode == 1
    assert "frames differ from the JSON" in done.stderr
