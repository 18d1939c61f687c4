"""One start of posesdk, step by step, in the process that it is run in: what `start_up.py` runs in fresh ones.

    python benchmarks/start_steps.py SPAWNED PICTURE SETTINGS
    python benchmarks/start_steps.py save SOURCE FOLDER

SPAWNED is the clock (`time.monotonic`) when the process was made, PICTURE what `save` wrote, SETTINGS are Detector's
own as JSON. Prints JSON: for each step its name, its seconds by the clock and of the processors, and what the process
then holds in MiB.
"""

import time

BEGAN = time.monotonic()

import sys  # noqa: E402  # loads nothing

TYPE_CHECKING = False  # typing has it too, but its import is part of what is measured
if TYPE_CHECKING:
    from typing import Any

FRAMES = 100
"""After which memory is looked at again."""
OTHER_SIZES = ((240, 320), (480, 640), (640, 480), (375, 500), (1080, 1920), (600, 600), (500, 333))
"""Heights and widths of further pictures: graphs keep something for each size of input."""


class Laps:
    """The steps so far, each with the time since the one before."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self._last = time.perf_counter(), time.process_time()

    def end(self, name: str) -> None:
        """A step is done; memory as it is now. Reading it is part of no step."""
        self.add(name, time.perf_counter() - self._last[0])

    def add(self, name: str, seconds: float) -> None:
        """A step that took so long, and the start of the next."""
        processor = time.process_time() - self._last[1]
        with open("/proc/self/status") as status:
            held = dict(line.split(":", 1) for line in status)
        rss, peak = (int(held[key].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        self.steps.append({"name": name, "seconds": seconds, "processor": processor, "rss": rss, "peak": peak})
        self._last = time.perf_counter(), time.process_time()


def start_up(spawned: float, picture: str, settings: str) -> None:
    """Prints the steps of a start."""
    laps = Laps()
    laps.add("python", BEGAN - spawned)
    import posesdk

    laps.end("import")
    kind = posesdk.Detector
    laps.end("classes")
    import json

    chosen = json.loads(settings)
    laps.end("json")
    detector = kind(**chosen)
    laps.end("detector")
    import numpy as np

    image = np.load(picture)
    laps.end("picture")
    people = len(detector(image))
    laps.end("first")
    times = sorted(_seconds(detector, image) for _ in range(FRAMES))
    laps.add("steady", times[len(times) // 2])
    laps.add("sizes", sum(_seconds(detector, resized(image, size)) for size in OTHER_SIZES))
    print(json.dumps({"steps": laps.steps, "people": people, "threads": _threads(), "used": str(detector)}))


def save_picture(source: str, folder: str) -> None:
    """Writes a picture, or the 50th frame of a video, as `photo.jpg`, as `picture.npy`, and often as `clip.avi`."""
    import cv2
    import numpy as np

    image = cv2.imread(source)
    if image is None:
        video = cv2.VideoCapture(source)
        video.set(cv2.CAP_PROP_POS_FRAMES, 50)
        found, image = video.read()
        if not found:
            raise SystemExit(f"cannot read {source}: expected a picture or a video")
    cv2.imwrite(f"{folder}/photo.jpg", image)
    np.save(f"{folder}/picture.npy", image)
    clip = cv2.VideoWriter(f"{folder}/clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 25, image.shape[1::-1])
    for _ in range(FRAMES):
        clip.write(image)
    clip.release()


def resized(image: "Any", size: tuple[int, int]) -> "Any":
    """The picture in another height and width."""
    import cv2

    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _seconds(detector: "Any", image: "Any") -> float:
    start = time.perf_counter()
    detector(image)
    return time.perf_counter() - start


def _threads() -> int:
    import os

    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    if sys.argv[1] == "save":
        save_picture(*sys.argv[2:])
    else:
        start_up(float(sys.argv[1]), *sys.argv[2:])
