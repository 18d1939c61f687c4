"""Reads JSON lines of poses: from standard input, a file, or MQTT, which needs paho-mqtt."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


def frames(source: str) -> Iterator[tuple[str, float, list[dict[str, Any]]]]:
    """Stream, time in seconds and persons of each frame; complains about lines that it cannot use.

    `source`: - for standard input, a file, or mqtt://[user:password@]host[:port]/topic. Poses that come again, on a
    later frame (mode skip), are left out.
    """
    last: dict[str, float] = {}
    for number, line in enumerate(_of_mqtt(source) if source.startswith("mqtt://") else _of_file(source), 1):
        try:
            data = json.loads(line)
            exact = data.get("stream", {}).get("pts_ns")
            stream, time = str(data["source"]), data["pts"] if exact is None else exact / 1e9
            if data["skeleton"] != "coco-17" or time is None:
                raise ValueError("the rule needs the skeleton coco-17 and a time (pts), which pictures do not have")
            if time != last.get(stream):
                yield stream, time, data["persons"]
            last[stream] = time
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"line {number} is left out: {error!r}", file=sys.stderr)


def _of_file(name: str) -> Iterator[str]:
    with sys.stdin if name == "-" else Path(name).open(encoding="utf-8") as file:
        yield from file


def _of_mqtt(address: str) -> Iterator[str]:
    from queue import Queue

    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    parts, (*_, topic), messages = urlsplit(address), address.split("/", 3), Queue[str]()
    client = Client(CallbackAPIVersion.VERSION2)

    def subscribe(_client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        print(f"broker: {reason}", file=sys.stderr, flush=True)
        client.subscribe(topic, qos=1)

    client.username_pw_set(parts.username, parts.password)
    client.on_connect = subscribe
    client.on_message = lambda _client, _data, message: messages.put(message.payload.decode())
    client.connect(parts.hostname or "localhost", parts.port or 1883)
    client.loop_start()
    while True:
        yield messages.get()
