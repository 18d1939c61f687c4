"""Tells of people who fell: reads JSON lines of poses, writes a JSON line when somebody lies for too long.

    posesdk detect VIDEO --jsonl - | python samples/gstreamer/fall_alarm.py
    posesdk gst launch -q "... ! logocappose ! logocapposejson ! fdsink" | python samples/gstreamer/fall_alarm.py
    python samples/gstreamer/fall_alarm.py mqtt://broker/posesdk/+/poses

A fall gives {"event": "fall", "end": null, ...} as soon as it is sure, and {"event": "over", ...} when it has ended.
It needs Python alone, and paho-mqtt to read from MQTT. The rule is `lies` and `FallAlarm`.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Point = tuple[float, float]
Box = tuple[float, float, float, float]
Event = dict[str, Any]

SHOULDERS, HIPS, KNEES, ANKLES = (5, 6), (11, 12), (13, 14), (15, 16)
"""Keypoints of the skeleton coco-17."""
LOW = 0.75
"""Lengths of the torso that ankles (or knees) may be below the hips of somebody who lies; of who stands it is 1.3."""
SAME_PERSON = 0.3
"""Part of the smaller box that two frames' boxes of a person share at least; the box turns over in a fall."""


@dataclass
class Track:
    """A person followed from frame to frame; `lying`: seconds that lying down adds and being up takes away."""

    person: int
    box: Box
    seen: float
    judged: float
    lying: float = 0.0
    start: float = 0.0
    end: float = 0.0
    told: bool = False

    def event(self, name: str) -> Event:
        end = None if name == "fall" else self.end
        return {"event": name, "person": self.person, "start": self.start, "end": end, "box": list(self.box)}


def middle(points: dict[int, Point], pair: tuple[int, int]) -> Point | None:
    """Between the left and the right keypoint, or the one that is visible."""
    found = [points[index] for index in pair if index in points]
    return (sum(x for x, _ in found) / len(found), sum(y for _, y in found) / len(found)) if found else None


def box_of(points: dict[int, Point]) -> Box:
    xs, ys = zip(*points.values(), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def shared(a: Box, b: Box) -> float:
    """The part of the smaller box that lies in the other one."""
    across, along = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(across, 0) * max(along, 0) / smaller if smaller > 0 else 0.0


def lies(points: dict[int, Point]) -> bool | None:
    """Whether a person lies: torso nearer to level than to upright, body wider than high, hips as low as the legs.

    None where shoulders or hips are not visible. Someone who bends down has a level torso, but hips high above the
    ankles; someone who sits on the floor has low hips, but an upright torso.
    """
    shoulders, hips = middle(points, SHOULDERS), middle(points, HIPS)
    if shoulders is None or hips is None:
        return None
    across, along = abs(hips[0] - shoulders[0]), abs(hips[1] - shoulders[1])
    left, top, right, bottom = box_of(points)
    legs = middle(points, ANKLES) or middle(points, KNEES)
    low = legs is None or legs[1] - hips[1] < LOW * hypot(across, along)
    return across > along and right - left > bottom - top and low


class FallAlarm:
    """Follows the people of one camera. All times are seconds of the stream, not of the clock."""

    def __init__(self, hold: float = 2.0, gap: float = 1.0, score: float = 0.05) -> None:
        self.hold, self.gap, self.score = hold, gap, score
        self.tracks: list[Track] = []
        self.people = 0
        self.time: float | None = None

    def update(self, time: float, persons: list[dict[str, Any]]) -> list[Event]:
        """What happened in the frame of `time`; `persons` as in the JSON, the best first."""
        if time == self.time:  # the poses of an earlier frame again, on a frame without its own (mode skip)
            return []
        self.time = time
        free = [track for track in self.tracks if 0 <= time - track.seen <= self.gap]
        events = [track.event("over") for track in self.tracks if track.told and track not in free]
        self.tracks = []
        for person in persons:
            points = {i: (x, y) for i, (x, y, score) in enumerate(person["keypoints"]) if score >= self.score}
            if points:
                track = self.follow(free, box_of(points), time)
                events += self.judge(track, time, lies(points))
        self.tracks += free
        return events

    def follow(self, free: list[Track], box: Box, time: float) -> Track:
        shares = [shared(track.box, box) for track in free]
        if max(shares, default=0) >= SAME_PERSON:
            track = free.pop(shares.index(max(shares)))
        else:
            self.people += 1
            track = Track(self.people, box, time, time)
        self.tracks.append(track)
        track.box, track.seen = box, time
        return track

    def judge(self, track: Track, time: float, lying: bool | None) -> list[Event]:
        if lying is None:
            return []
        step, track.judged = min(time - track.judged, self.gap), time
        if lying:
            track.start, track.end = track.start if track.lying else time - step, time
        track.lying = min(max(track.lying + (step if lying else -step), 0), self.hold)
        was, track.told = track.told, track.lying >= self.hold or (track.told and track.lying > 0)
        return [] if was == track.told else [track.event("fall" if track.told else "over")]


def read_lines(source: str) -> Iterator[str]:
    """Lines of standard input ("-") or of a file, or the messages of mqtt://[user:password@]host[:port]/topic."""
    if not source.startswith("mqtt://"):
        with sys.stdin if source == "-" else Path(source).open(encoding="utf-8") as file:
            yield from file
        return
    from queue import Queue

    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    parts, (*_, topic), messages = urlsplit(source), source.split("/", 3), Queue[str]()
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


def frames(lines: Iterator[str]) -> Iterator[tuple[str, float, list[dict[str, Any]]]]:
    """Source, time in seconds and persons of each line; complains about those it cannot use."""
    for number, line in enumerate(lines, 1):
        try:
            data = json.loads(line)
            exact = data.get("stream", {}).get("pts_ns")
            time = data["pts"] if exact is None else exact / 1e9
            if data["skeleton"] != "coco-17" or time is None:
                raise ValueError("the rule needs the skeleton coco-17 and a time (pts), which pictures do not have")
            yield str(data["source"]), time, data["persons"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            print(f"line {number} is left out: {error!r}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="-", help="JSON lines: a file, mqtt://host/topic, - for stdin")
    parser.add_argument("--hold", type=float, default=2.0, help="seconds of lying that make a fall [2]")
    parser.add_argument("--gap", type=float, default=1.0, help="seconds that a person may be unseen [1]")
    parser.add_argument("--score", type=float, default=0.05, help="lowest score of a keypoint that counts [0.05]")
    options = parser.parse_args()
    alarms: dict[str, FallAlarm] = defaultdict(lambda: FallAlarm(options.hold, options.gap, options.score))
    count = falls = 0
    try:
        for source, time, persons in frames(read_lines(options.source)):
            count += 1
            for event in alarms[source].update(time, persons):
                falls += event["event"] == "fall"
                print(json.dumps({"source": source} | event), flush=True)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read {options.source}: {error}")
    except ImportError as error:
        parser.error(f"{error}; MQTT needs paho-mqtt: pip install 'posesdk[mqtt]'")
    except KeyboardInterrupt:
        pass
    for source, alarm in alarms.items():
        for event in [track.event("over") for track in alarm.tracks if track.told]:
            print(json.dumps({"source": source} | event), flush=True)
    print(f"{count} frames, {falls} {'fall' if falls == 1 else 'falls'}", file=sys.stderr)
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
