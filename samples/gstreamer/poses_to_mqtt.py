"""Publishes the poses of a camera or a video over MQTT: a JSON line per frame to posesdk/STREAM/poses.

    python samples/gstreamer/poses_to_mqtt.py rtsp://camera/stream --stream-id door --broker broker.local
    python samples/gstreamer/poses_to_mqtt.py video.mp4 --realtime
    python samples/gstreamer/poses_to_mqtt.py "v4l2src ! image/jpeg ! jpegdec" --mode drop
    python samples/gstreamer/reconnect.py rtsp://camera/stream | python samples/gstreamer/poses_to_mqtt.py -

posesdk/STREAM/status is "online" or "offline" (retained; the broker says "offline" for a client that died). The
pipeline never waits for the broker: while it is away the newest lines are kept, and the oldest dropped and counted.
User and password come from the environment: MQTT_USER, MQTT_PASSWORD.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

from outbox import Outbox, say

from posesdk.interrupts import stop_as_interrupted
from posesdk_runtimes.errors import PoseSDKError


def connect(options: argparse.Namespace) -> Any:
    """A client that reaches the broker by itself once its loop runs, and again whenever it is lost."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    client = Client(CallbackAPIVersion.VERSION2)
    client.username_pw_set(os.environ.get("MQTT_USER"), os.environ.get("MQTT_PASSWORD"))
    secure = options.tls or options.ca
    if secure:
        client.tls_set(ca_certs=options.ca)
    host, _, port = options.broker.partition(":")
    if port and not port.isdecimal():
        raise ValueError(f"expected HOST or HOST:PORT, got {options.broker!r}")
    client.reconnect_delay_set(1, 30)
    client.connect_async(host, int(port or (8883 if secure else 1883)), keepalive=15)
    return client


def play(options: argparse.Namespace, outbox: Outbox) -> int:
    """Runs the pipeline to its end; the exit status."""
    from posesdk.gst import register

    register()
    from posesdk.gst.launch import LaunchOptions, launch, parse_pipeline

    source = options.source
    if Path(source).is_file():
        source = Path(source).resolve().as_uri()
    if re.fullmatch(r"[a-z][\w+.-]*://\S+", source):
        source = f'uridecodebin uri="{source}"'
    sink = f"fakesink sync={'true' if options.realtime else 'false'}"
    pipeline = parse_pipeline([f"{source} ! videoconvert ! logocappose name=poses-to-mqtt ! {sink}"])
    element = pipeline.get_by_name("poses-to-mqtt")
    for name in ("model", "mode", "stream-id"):
        element.set_property(name, getattr(options, name.replace("-", "_")))
    element.connect("poses", lambda _element, _pts, line: outbox.put(line))
    return launch(pipeline, LaunchOptions(quiet=True))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="a file, a URI, a pipeline up to raw video, - for JSON lines on standard input")
    parser.add_argument("--model", default="", help="bundle or name of a model [the default model]")
    parser.add_argument("--mode", default="auto", help="auto, sync, skip or drop, as of logocappose [auto]")
    parser.add_argument("--realtime", action="store_true", help="play a file at its own pace")
    parser.add_argument("--stream-id", default="camera", help="name of this stream in topics and JSON [camera]")
    parser.add_argument("--prefix", default="posesdk", help="first part of the topics [posesdk]")
    parser.add_argument("--broker", default="localhost", help="HOST or HOST:PORT [localhost:1883, with TLS 8883]")
    parser.add_argument("--qos", type=int, default=1, choices=(0, 1, 2), help="quality of service of the poses [1]")
    parser.add_argument("--tls", action="store_true", help="encrypted, checked by the system's certificates")
    parser.add_argument("--ca", help="encrypted, checked by this file of certificates (PEM)")
    parser.add_argument("--queue", type=int, default=300, help="lines kept while the broker is away [300]")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds for the last lines at the end [5]")
    options = parser.parse_args()
    if not re.fullmatch(r"[^/+#\s]+", options.stream_id):
        parser.error(f"--stream-id is a part of a topic, without / + # and blanks, got {options.stream_id!r}")
    if re.fullmatch(r"[^:!\s]*[./][^:!\s]*", options.source) and not Path(options.source).is_file():
        parser.error(f"{options.source}: no such file")
    try:
        options.client = connect(options)
    except ImportError as error:
        parser.error(f"{error}; MQTT needs paho-mqtt: pip install 'posesdk[mqtt]'")
    except (OSError, ValueError) as error:
        parser.error(f"cannot prepare the connection to {options.broker} {options.ca or ''}: {error}")
    return options


def main() -> int:
    options = parse()
    outbox = Outbox(options.client, f"{options.prefix}/{options.stream_id}", qos=options.qos, size=options.queue)
    stop_as_interrupted()
    try:
        if options.source == "-":
            for line in sys.stdin:
                outbox.put(line.strip())
            code = 0
        else:
            code = play(options, outbox)
    except KeyboardInterrupt:
        code = 130
    except (PoseSDKError, ValueError) as error:
        say(f"cannot run {options.source}: {error}")
        code = 1
    outbox.close(options.patience)
    say(f"{outbox.sent} frames published, {outbox.dropped} dropped, {outbox.lost} lost")
    return code


if __name__ == "__main__":
    sys.exit(main())
