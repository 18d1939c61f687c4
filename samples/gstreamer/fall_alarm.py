"""Tells of people who fell: reads JSON lines of poses, writes a JSON line when somebody lies for too long.

    posesdk detect VIDEO --jsonl - | python samples/gstreamer/fall_alarm.py
    posesdk gst launch -q "... ! logocappose ! logocapposejson ! fdsink" | python samples/gstreamer/fall_alarm.py
    python samples/gstreamer/fall_alarm.py mqtt://broker/posesdk/+/poses

A fall gives {"event": "fall", "end": null, ...} as soon as it is sure, and {"event": "over", ...} when it has ended.
It needs Python alone, and paho-mqtt to read from MQTT. The rule is `lies` and `Fall`.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from math import hypot
from typing import Any

from people import Box, Follower, Points, box_of, middle
from pose_lines import frames

Event = dict[str, Any]

LOW = 0.75
"""Lengths of the torso that ankles (or knees) may be below the hips of somebody who lies; of who stands it is 1.3."""


def lies(points: Points) -> bool | None:
    """Whether a person lies: torso nearer to level than to upright, body wider than high, hips as low as the legs.

    None where shoulders or hips are not visible. Someone who bends down has a level torso, but hips high above the
    ankles; someone who sits on the floor has low hips, but an upright torso.
    """
    shoulders, hips = middle(points, 5, 6), middle(points, 11, 12)
    if shoulders is None or hips is None:
        return None
    across, along = abs(hips[0] - shoulders[0]), abs(hips[1] - shoulders[1])
    left, top, right, bottom = box_of(points)
    legs = middle(points, 15, 16) or middle(points, 13, 14)  # ankles, knees
    low = legs is None or legs[1] - hips[1] < LOW * hypot(across, along)
    return across > along and right - left > bottom - top and low


@dataclass
class Fall:
    """Of one person: told after `hold` seconds of `lying`, to which lying adds and from which being up takes away."""

    hold: float
    judged: float
    box: Box
    lying: float = 0.0
    start: float = 0.0
    end: float = 0.0
    told: bool = False

    def update(self, time: float, points: Points, gap: float) -> bool:
        """Whether the fall begins or ends in the frame of `time`, seconds of the stream; `told` says which."""
        self.box, lying = box_of(points), lies(points)
        if lying is None:
            return False
        step, self.judged = min(time - self.judged, gap), time
        if lying:
            self.start, self.end = self.start if self.lying else time - step, time
        self.lying = min(max(self.lying + (step if lying else -step), 0), self.hold)
        before, self.told = self.told, self.lying >= self.hold or (self.told and self.lying > 0)
        return before != self.told


class Alarms:
    """The falls of the people of every camera; each method gives what to tell."""

    def __init__(self, hold: float, gap: float, score: float) -> None:
        self.hold, self.gap = hold, gap
        self.followers = defaultdict[str, Follower](lambda: Follower(gap, score))
        self.falls: dict[tuple[str, int], Fall] = {}

    def update(self, source: str, time: float, persons: list[dict[str, Any]]) -> Iterator[Event]:
        follower = self.followers[source]
        people = follower.update(time, persons)
        yield from self.end([key for key in self.falls if key[0] == source and key[1] not in follower.last])
        for number, points in people.items():
            fall = self.falls.setdefault((source, number), Fall(self.hold, time, box_of(points)))
            if fall.update(time, points, self.gap):
                yield event(source, number, fall)

    def end(self, keys: list[tuple[str, int]]) -> Iterator[Event]:
        for key in keys:
            fall = self.falls.pop(key)
            if fall.told:
                fall.told = False
                yield event(*key, fall)


def event(source: str, person: int, fall: Fall) -> Event:
    name, end = ("fall", None) if fall.told else ("over", fall.end)
    return {"source": source, "event": name, "person": person, "start": fall.start, "end": end, "box": list(fall.box)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", default="-", help="JSON lines: a file, mqtt://host/topic, - for stdin")
    parser.add_argument("--hold", type=float, default=2.0, help="seconds of lying that make a fall [2]")
    parser.add_argument("--gap", type=float, default=1.0, help="seconds that a person may be unseen [1]")
    parser.add_argument("--score", type=float, default=0.05, help="lowest score of a keypoint that counts [0.05]")
    options = parser.parse_args()
    alarms = Alarms(options.hold, options.gap, options.score)
    count = falls = 0
    try:
        for frame in frames(options.source):
            count += 1
            for told in alarms.update(*frame):
                falls += told["event"] == "fall"
                print(json.dumps(told), flush=True)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read {options.source}: {error}")
    except ImportError as error:
        parser.error(f"{error}; MQTT needs paho-mqtt: pip install 'posesdk[mqtt]'")
    except KeyboardInterrupt:
        pass
    for told in alarms.end(list(alarms.falls)):
        print(json.dumps(told), flush=True)
    print(f"{count} frames, {falls} {'fall' if falls == 1 else 'falls'}", file=sys.stderr)
    return 0 if count else 1


if __name__ == "__main__":
    sys.exit(main())
