"""The samples that pass poses on to MQTT, with a real broker."""

import getpass
import importlib
import importlib.util
import json
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from posesdk import Poses
from posesdk.gst import why_unavailable
from sample_programs import CLIP, ENVIRONMENT, LIMIT, SAMPLES, fall_lines, run

reason = why_unavailable()
needs_gstreamer = pytest.mark.skipif(reason is not None, reason=reason or "")


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
    lines = fall_lines(step=0.05)
    done = run("poses_to_mqtt", "-", "--stream-id", "door", "--broker", broker.address, "--qos", qos, lines=lines)
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
    done = run("poses_to_mqtt", "-", "--broker", Broker(tmp_path).address, "--patience", "0.2", lines=fall_lines())
    assert done.returncode == 0
    assert f"0 frames published, {len(fall_lines())} dropped, 0 lost" in done.stderr


@needs_mqtt
def test_wrong_password_is_told_and_the_right_one_works(tmp_path):
    if (passwords := shutil.which("mosquitto_passwd")) is None:
        pytest.skip("needs mosquitto_passwd, which comes with mosquitto")
    subprocess.run([passwords, "-c", "-b", tmp_path / "passwords", "cam", "secret"], check=True, capture_output=True)
    broker = Broker(tmp_path, f"allow_anonymous false\npassword_file {tmp_path / 'passwords'}")
    broker.start()
    words, lines = ["-", "--broker", broker.address, "--patience", "2"], fall_lines()[:5]
    wrong = run("poses_to_mqtt", *words, lines=lines, MQTT_USER="cam", MQTT_PASSWORD="guess")
    right = run("poses_to_mqtt", *words, lines=lines, MQTT_USER="cam", MQTT_PASSWORD="secret")
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
    words, lines = ["-", "--broker", broker.address, "--patience", "2"], fall_lines()[:5]
    known = run("poses_to_mqtt", *words, "--ca", str(certificate), lines=lines)
    unknown = run("poses_to_mqtt", *words, "--tls", lines=lines)
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
    done = run("poses_to_mqtt", *words)
    assert done.returncode == 2
    assert told in done.stderr


@needs_gstreamer
@needs_mqtt
def test_faults_of_the_pipeline_are_told(tmp_path):
    words = ["--broker", Broker(tmp_path).address, "--patience", "0"]
    unknown = run("poses_to_mqtt", "nosuchelement ! identity", *words)
    mode = run("poses_to_mqtt", "videotestsrc num-buffers=3", "--mode", "quick", *words)
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
            run(
                "poses_to_mqtt", "-", "--broker", broker.address, lines=fall_lines()
            )  # again: it may listen from now on
        assert json.loads(process.stdout.readline())["event"] == "fall"
        process.send_signal(signal.SIGINT)
        assert re.search(r"\d+ frames, \d+ fall", process.communicate(timeout=LIMIT)[1])
        assert process.returncode == 0


@needs_gstreamer
@needs_mqtt
def test_every_frame_of_a_video_arrives_in_order(broker, inbox, clip, converted_bundle):
    words = ["--model", str(converted_bundle), "--stream-id", "door", "--broker", broker.address]
    done = run("poses_to_mqtt", str(clip), *words)
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
