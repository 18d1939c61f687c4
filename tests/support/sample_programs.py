"""The samples of `samples/gstreamer` as programs, and lines of poses for them to read."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

__all__ = ["CLIP", "ENVIRONMENT", "LIMIT", "SAMPLES", "fall_lines", "line_of", "person_at", "run"]

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples" / "gstreamer"
FOLDERS = [str(ROOT / folder) for folder in ("runtimes", "sdk")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS), "OMP_NUM_THREADS": "1"}
LIMIT = 120
"""Seconds after which a test gives up."""

CLIP = 24
"""Frames of the fixture `clip`."""

STANDING = {  # of coco-17, in parts of the height: (x, y)
    "nose": (0.0, 0.02), "eye": (0.03, 0.0), "ear": (0.05, 0.02), "shoulder": (0.1, 0.16), "elbow": (0.14, 0.32),
    "wrist": (0.15, 0.46), "hip": (0.07, 0.5), "knee": (0.07, 0.74), "ankle": (0.07, 0.96),
}  # fmt: skip


def person_at(angle: float = 0.0, *, height: float = 200.0, place=(400.0, 300.0), score: float = 0.2) -> np.ndarray:
    """Keypoints (17, 3) of a person who stands (0 degrees), or is turned about the middle of the body."""
    nose, *pairs = STANDING.values()
    points = np.array([nose, *(point for x, y in pairs for point in ((x, y), (-x, y)))])
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (points - [0, 0.5]) * height @ matrix.T + place
    return np.column_stack([points, np.full(17, score)])


def line_of(time_s: float, people: list[np.ndarray], **stream) -> dict:
    persons = [{"id": None, "score": 0.2, "box": [], "keypoints": person.tolist()} for person in people]
    data = {"source": "cam0", "pts": time_s, "skeleton": "coco-17", "persons": persons}
    return {**data, "stream": {"pts_ns": round(time_s * 1e9), "age_ns": 0, "fresh": True} | stream}


def run(name: str, *words: str, lines: list[dict] | None = None, **environment: str) -> subprocess.CompletedProcess:
    text = None if lines is None else "".join(f"{json.dumps(line)}\n" for line in lines)
    command = [sys.executable, str(SAMPLES / f"{name}.py"), *words]
    return subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=LIMIT, env=ENVIRONMENT | environment, check=False
    )


def fall_lines(step: float = 0.1, *, down: float = 2.0, up: float = 6.0, until: float = 9.0, **person) -> list[dict]:
    """A person stands, lies from `down` to `up`, and stands again."""
    times = np.arange(0, until, step)
    return [line_of(t, [person_at(90.0 if down <= t < up else 0.0, **person)]) for t in times]
