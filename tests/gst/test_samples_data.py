"""The samples that pass poses on: to MQTT, to an alarm, to GStreamer's own metadata."""

import functools
import getpass
import importlib
import importlib.util
import inspect
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from posesdk import Poses
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


@pytest.fixture
def load(monkeypatch) -> Callable[[str], ModuleType]:
    """`load("fall_alarm")`: the module of a sample, which finds its neighbours as a program does."""
    monkeypatch.syspath_prepend(SAMPLES)
    return importlib.import_module


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
def test_body_that_lies_in_the_picture_is_told_from_one_that_stands(load, angle):
    lies = load("fall_alarm").lies
    assert lies(_points(_person(angle)))
    assert not lies(_points(_person(angle / 10)))


def _points(person: np.ndarray) -> dict:
    return {index: (x, y) for index, (x, y, _) in enumerate(person.tolist())}


CLIP = 24


@pytest.fixture(scope="module")
def clip(shared, tmp_path_factory) -> Path:
    """The first frames of two_people_1080p28.mp4, as they are."""
    from posesdk.gst.bindings import Gst

    video, path = shared("data", "videos", "two_people_1080p28.mp4"), tmp_path_factory.mktemp("clip") / "clip.mp4"
    cut = f"qtdemux ! h264parse ! identity eos-after={CLIP + 1} ! mp4mux"
    cutter = Gst.parse_launch(f'filesrc location="{video}" ! {cut} ! filesink location="{path}"')
    cutter.set_state(Gst.State.PLAYING)
    message = cutter.get_bus().timed_pop_filtered(LIMIT * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    cutter.set_state(Gst.State.NULL)
    assert message is not None
    assert message.type == Gst.MessageType.EOS, message.parse_error()
    return path


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
    events = _alarms([_line(t, people if t < 3 else fallen) for t in np.arange(0, 8, 0.1)])
    assert [event["event"] for event in events] == ["fall", "fall", "over", "over"]
    assert all(2.89 < event["start"] < 3.01 for event in events)


def test_bending_down_and_sitting_are_no_falls(load):
    bent, seated = _person(), _person()
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
    stale = [_line(0.0, [_person(90.0)], fresh=False, age_ns=round(t * 1e9)) for t in np.arange(0, 9, 0.1)]
    assert _alarms(stale) == []


def test_poses_of_a_live_stream_are_judged_once_though_each_is_late():
    """Mode skip: no frame carries its own poses, and some carry those of the frame before once more."""
    late = [_line(line["pts"], [], fresh=False, age_ns=10**8) | {"persons": line["persons"]} for line in _fall()]
    assert _alarms([line for line in late for _ in range(2)]) == _alarms(_fall())


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


MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
missing = None if MOSQUITTO else "needs a broker: apt-get install mosquitto"
if importlib.util.find_spec("paho") is None:
    missing = "needs paho-mqtt: pip install 'posesdk[mqtt]'"
needs_mqtt = pytest.mark.skipif(missing is not None, reason=missing or "")


class Broker:
    """A mosquitto on a free port, which can be killed and started again."""

    def __init__(self, folder: Path, settings: str = "allow_anonymous true") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._file = folder / "mosquitto.conf"
        self._file.write_text(f"listener {self.port} 127.0.0.1\nuser {getpass.getuser()}\n{settings}\n")
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [MOSQUITTO, "-c", str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + LIMIT
        while time.monotonic() < end and self._process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise AssertionError("the broker did not start")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Inbox:
    """What arrives under posesdk/#, by topic; it reaches a broker that was restarted, too."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self._changed, self._subscribed = threading.Condition(), False
        self._messages: dict[str, list[str]] = {}
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.reconnect_delay_set(0.1, 0.1)
        self._client.on_connect = lambda client, *_: client.subscribe("posesdk/#", qos=1)
        self._client.on_subscribe = lambda *_: self._note(None)
        self._client.on_message = lambda _client, _data, message: self._note(message)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()
        with self._changed:
            assert self._changed.wait_for(lambda: self._subscribed, LIMIT)

    def _note(self, message) -> None:
        with self._changed:
            self._subscribed = True
            if message is not None:
                self._messages.setdefault(message.topic, []).append(message.payload.decode())
            self._changed.notify_all()

    def lines(self, topic: str, count: int = 1) -> list[str]:
        """All messages of a topic so far, at least `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._messages.get(topic, ())) >= count, LIMIT), (
                f"{len(self._messages.get(topic, ()))} of {count} messages under {topic}"
            )
            return list(self._messages[topic])

    def wait_for(self, topic: str, last: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._messages.get(topic, [None])[-1] == last, LIMIT)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker(tmp_path):
    one = Broker(tmp_path)
    one.start()
    yield one
    one.kill()


@pytest.fixture
def inbox(broker):
    one = Inbox(broker.port)
    yield one
    one.close()


@needs_mqtt
@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_lines_arrive_in_order_and_the_status_says_when(broker, inbox, qos):
    lines = _fall(step=0.05)
    done = _run("poses_to_mqtt", "-", "--stream-id", "door", "--broker", broker.address, "--qos", qos, lines=lines)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in inbox.lines("posesdk/door/poses", len(lines))] == lines
    inbox.wait_for("posesdk/door/status", "offline")
    assert inbox.lines("posesdk/door/status") == ["online", "offline"]
    assert f"{len(lines)} frames published, 0 dropped, 0 lost" in done.stderr


@needs_mqtt
def test_full_queue_drops_the_oldest_lines(broker, inbox, load):
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2)
    client.connect_async("127.0.0.1", broker.port)
    start, client.loop_start = client.loop_start, lambda: None
    outbox = load("outbox").Outbox(client, "posesdk/door", qos=1, size=10)
    for number in range(50):
        outbox.put(str(number))
    start()
    inbox.lines("posesdk/door/poses", 10)
    outbox.close(LIMIT)
    assert inbox.lines("posesdk/door/poses") == [str(number) for number in range(40, 50)]
    assert (outbox.sent, outbox.dropped, outbox.lost) == (10, 40, 0)


@needs_mqtt
def test_broker_tells_of_a_publisher_that_died(broker, inbox):
    command = [sys.executable, str(SAMPLES / "poses_to_mqtt.py"), "-", "--broker", broker.address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT) as process:
        inbox.wait_for("posesdk/camera/status", "online")
        process.kill()
        assert process.wait(20) < 0  # it said nothing itself
        inbox.wait_for("posesdk/camera/status", "offline")


@needs_mqtt
def test_end_does_not_wait_for_a_broker_that_is_away(tmp_path):
    done = _run("poses_to_mqtt", "-", "--broker", Broker(tmp_path).address, "--patience", "0.2", lines=_fall())
    assert done.returncode == 0
    assert f"0 frames published, {len(_fall())} dropped, 0 lost" in done.stderr


@needs_mqtt
def test_wrong_password_is_told_and_the_right_one_works(tmp_path):
    if (passwords := shutil.which("mosquitto_passwd")) is None:
        pytest.skip("needs mosquitto_passwd, which comes with mosquitto")
    subprocess.run([passwords, "-c", "-b", tmp_path / "passwords", "cam", "secret"], check=True, capture_output=True)
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    words, lines = ["-", "--broker", broker.address, "--patience", "2"], _fall()[:5]
    wrong = _run("poses_to_mqtt", *words, lines=lines, MQTT_USER="cam", MQTT_PASSWORD="guess")
    right = _run("poses_to_mqtt", *words, lines=lines, MQTT_USER="cam", MQTT_PASSWORD="secret")
    broker.kill()
    assert "the broker refuses: Not authorized" in wrong.stderr
    assert "5 frames published" in right.stderr


@needs_mqtt
def test_encrypted_connection_needs_a_certificate_that_is_known(tmp_path):
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("needs openssl, to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate} -days 2 -subj /CN=localhost"
    subprocess.run([openssl, *make.split(), "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    broker = Broker(tmp_path, f"allow_anonymous true\ncertfile {certificate}\nkeyfile {key}")
    broker.start()
    words, lines = ["-", "--broker", broker.address, "--patience", "2"], _fall()[:5]
    known = _run("poses_to_mqtt", *words, "--ca", str(certificate), lines=lines)
    unknown = _run("poses_to_mqtt", *words, "--tls", lines=lines)
    broker.kill()
    assert "5 frames published" in known.stderr
    assert "0 frames published, 5 dropped" in unknown.stderr


@needs_mqtt
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-", "--stream-id", "a/#"], "--stream-id is a part of a topic"),
        (["-", "--broker", "localhost:http"], "expected HOST or HOST:PORT, got 'localhost:http'"),
        (["-", "--ca", "/nowhere.pem"], "/nowhere.pem"),
        (["/nowhere/video.mp4"], "/nowhere/video.mp4: no such file"),
    ],
)
def test_mistakes_on_the_command_line_are_told(words, told):
    done = _run("poses_to_mqtt", *words)
    assert done.returncode == 2
    assert told in done.stderr


@needs_gstreamer
@needs_mqtt
def test_faults_of_the_pipeline_are_told(tmp_path):
    words = ["--broker", Broker(tmp_path).address, "--patience", "0"]
    unknown = _run("poses_to_mqtt", "nosuchelement ! identity", *words)
    mode = _run("poses_to_mqtt", "videotestsrc num-buffers=3", "--mode", "quick", *words)
    assert 'no element "nosuchelement"' in unknown.stderr
    assert "expected one of auto, sync, skip, drop, got 'quick'" in mode.stderr
    assert 0 not in (unknown.returncode, mode.returncode)


@needs_mqtt
def test_alarm_listens_to_mqtt(broker):
    command = [sys.executable, str(SAMPLES / "fall_alarm.py"), f"mqtt://{broker.address}/posesdk/#"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stderr.readline() == "broker: Success\n"
        end = time.monotonic() + LIMIT
        while not select.select([process.stdout], [], [], 0)[0] and time.monotonic() < end:
            _run("poses_to_mqtt", "-", "--broker", broker.address, lines=_fall())  # again: it may listen from now on
        assert json.loads(process.stdout.readline())["event"] == "fall"
        process.send_signal(signal.SIGINT)
        assert re.search(r"\d+ frames, \d+ fall", process.communicate(timeout=LIMIT)[1])
        assert process.returncode == 0


@needs_gstreamer
@needs_mqtt
def test_every_frame_of_a_video_arrives_in_order(broker, inbox, clip, converted_bundle):
    words = ["--model", str(converted_bundle), "--stream-id", "door", "--broker", broker.address]
    done = _run("poses_to_mqtt", str(clip), *words)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in inbox.lines("posesdk/door/poses", CLIP)]
    assert [line["index"] for line in lines] == list(range(CLIP))
    assert {line["source"] for line in lines} == {"door"}
    poses = [Poses.from_dict(line) for line in lines]
    assert {one.image_size for one in poses} == {(1080, 1920)}
    assert sum(map(len, poses)) > CLIP


@needs_gstreamer
@needs_mqtt
def test_pipeline_runs_on_while_the_broker_is_away(broker, inbox, shared, converted_bundle):
    video = shared("data", "videos", "two_children_540p30.mp4")
    command = [sys.executable, str(SAMPLES / "poses_to_mqtt.py"), str(video), "--realtime", "--mode", "sync"]
    command += ["--model", str(converted_bundle), "--broker", broker.address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True) as process:
        heard = iter(process.stderr.readline, "")
        before = inbox.lines("posesdk/camera/poses", 20)
        broker.kill()
        assert any("the broker is gone" in line for line in heard)
        broker.start()
        assert any("the broker is there" in line for line in heard)
        rest = "".join(heard)
        assert process.wait(LIMIT) == 0, rest
    inbox.wait_for("posesdk/camera/status", "offline")
    indices = [json.loads(line)["index"] for line in inbox.lines("posesdk/camera/poses", len(before) + 1)]
    assert indices[-1] == 199
    assert list(dict.fromkeys(indices)) == sorted(set(indices))  # QoS 1: some may come twice
    assert ", 0 dropped, 0 lost" in rest


@needs_gstreamer
def test_people_in_gstreamers_own_metadata_are_those_of_the_json(clip, converted_bundle):
    from posesdk.gst import analytics

    done = _run("analytics_interop", str(clip), "--model", str(converted_bundle))
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
