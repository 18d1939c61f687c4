"""The samples that pass poses on: to MQTT, to an alarm, to GStreamer's own metadata."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from posesdk.gst import why_unavailable

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples" / "gstreamer"
FOLDERS = [str(ROOT / folder) for folder in ("runtimes", "sdk")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS), "OMP_NUM_THREADS": "1"}
LIMIT = 120
"""Seconds after which a test gives up."""

reason = why_unavailable()
needs_gstreamer = pytest.mark.skipif(reason is not None, reason=reason or "")

STANDING = {  # of coco-17, in parts of the height: (x, y)
    "nose": (0.0, 0.02), "eye": (0.03, 0.0), "ear": (0.05, 0.02), "shoulder": (0.1, 0.16), "elbow": (0.14, 0.32),
    "wrist": (0.15, 0.46), "hip": (0.07, 0.5), "knee": (0.07, 0.74), "ankle": (0.07, 0.96),
}  # fmt: skip


def _person(angle: float = 0.0, *, height: float = 200.0, place=(400.0, 300.0), score: float = 0.2) -> np.ndarray:
    """Keypoints (17, 3) of a person who stands (0 degrees), or is turned about the middle of the body."""
    nose, *pairs = STANDING.values()
    points = np.array([nose, *(point for x, y in pairs for point in ((x, y), (-x, y)))])
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (points - [0, 0.5]) * height @ matrix.T + place
    return np.column_stack([points, np.full(17, score)])


def _line(time_s: float, people: list[np.ndarray], **stream) -> dict:
    persons = [{"id": None, "score": 0.2, "box": [], "keypoints": person.tolist()} for person in people]
    data = {"source": "cam0", "pts": time_s, "skeleton": "coco-17", "persons": persons}
    return {**data, "stream": {"pts_ns": round(time_s * 1e9), "age_ns": 0, "fresh": True} | stream}


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _run(name: str, *words: str, lines: list[dict] | None = None, **environment: str) -> subprocess.CompletedProcess:
    text = None if lines is None else "".join(f"{json.dumps(line)}\n" for line in lines)
    command = [sys.executable, str(SAMPLES / f"{name}.py"), *words]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=LIMIT, env=ENVIRONMENT | environment, check=False
    )


def _alarms(lines: list[dict], *words: str) -> list[dict]:
    done = _run("fall_alarm", *words, lines=lines)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _fall(step: float = 0.1, *, down: float = 2.0, up: float = 6.0, until: float = 9.0, **person) -> list[dict]:
    """A person stands, lies from `down` to `up`, and stands again."""
    times = np.arange(0, until, step)
    return [_line(t, [_person(90.0 if down <= t < up else 0.0, **person)]) for t in times]


def test_fall_gives_one_alarm_with_its_start_and_end():
    fall, over = _alarms(_fall())
    assert (fall["event"], fall["end"], fall["source"]) == ("fall", None, "cam0")
    assert (over["event"], over["person"]) == ("over", fall["person"])
    assert fall["start"] == over["start"] == pytest.approx(1.9)
    assert over["end"] == pytest.approx(5.9)
    points = _person(90.0)[:, :2]
    assert fall["box"] == pytest.approx([*points.min(axis=0), *points.max(axis=0)])


@pytest.mark.parametrize("angle", [-120, -90, -60, 60, 90, 120])
def test_body_that_lies_in_the_picture_is_told_from_one_that_stands(angle):
    lies = _load("fall_alarm").lies
    assert lies(_points(_person(angle)))
    assert not lies(_points(_person(angle / 10)))


def _points(person: np.ndarray) -> dict:
    return {index: (x, y) for index, (x, y, _) in enumerate(person.tolist())}


def test_bending_down_and_sitting_are_no_falls():
    bent, seated = _person(), _person()
    bent[:11, :2] = (bent[:11, :2] - [400, 300]) @ np.array([[0, 1], [-1, 0]]) + [400, 300]  # above the hips, forward
    seated[13:15, 1] = seated[11:13, 1]
    seated[13:15, 0] += 50
    seated[15:17, :2] = seated[13:15, :2] + [5, 45]
    on_floor = seated.copy()
    on_floor[15:17, :2] = seated[13:15, :2] + [45, 0]
    lies = _load("fall_alarm").lies
    assert [lies(_points(person)) for person in (bent, seated, on_floor)] == [False, False, False]


@pytest.mark.parametrize("seconds", [0.5, 1.5])
def test_lying_for_a_moment_is_no_fall(seconds):
    assert _alarms(_fall(up=2 + seconds)) == []


def test_fall_is_told_when_half_of_the_keypoints_and_frames_are_missing():
    lines = _fall(step=0.05)
    rng = np.random.default_rng(0)
    for line in lines:
        for keypoint in line["persons"][0]["keypoints"]:
            if rng.random() < 0.5:
                keypoint[2] = 0.01
        if rng.random() < 0.5:
            line["persons"] = []
    assert [event["event"] for event in _alarms(lines)] == ["fall", "over"]


def test_two_people_are_followed_apart():
    lines = [_line(t, [_person(place=(100, 300)), _person(90.0 if t > 2 else 0.0)][:: -1 if n % 2 else 1])
             for n, t in enumerate(np.arange(0, 6, 0.1))]  # fmt: skip
    fall, over = _alarms(lines)
    assert fall["person"] == over["person"]
    assert fall["box"][0] > 200


def test_stale_poses_are_not_judged_again():
    lines = [_line(0.0, [_person(90.0)])]
    lines += [_line(0.0, [_person(90.0)], fresh=False, age_ns=round(t * 1e9)) for t in np.arange(0.1, 9, 0.1)]
    assert _alarms(lines) == []


def test_two_cameras_are_judged_apart_and_a_camera_that_starts_again_too():
    lines = [{**line, "source": name} for line in _fall(until=5.0) for name in ("cam0", "cam1")]
    events = _alarms(lines + [{**line, "source": "cam0"} for line in _fall()])
    assert [(event["source"], event["event"]) for event in events] == [
        ("cam0", "fall"), ("cam1", "fall"), ("cam0", "over"), ("cam0", "fall"), ("cam0", "over"), ("cam1", "over")
    ]  # fmt: skip


def test_alarm_outlives_lines_that_it_cannot_use():
    lines = _fall()
    picture = {key: value for key, value in lines[0].items() if key != "stream"} | {"pts": None}
    lines[20:20] = ["a string", {"v": 1}, picture, {**lines[0], "skeleton": "crowdpose-14"}]
    done = _run("fall_alarm", lines=lines)
    assert [json.loads(line)["event"] for line in done.stdout.splitlines()] == ["fall", "over"]
    assert done.stderr.count("is left out") == 4
    assert "skeleton coco-17 and a time" in done.stderr


def test_alarm_fails_where_no_line_has_poses():
    assert _run("fall_alarm", lines=[{"v": 1}]).returncode == 1
    assert "cannot read /nowhere" in _run("fall_alarm", "/nowhere").stderr
