"""Several cameras and video files on one picture, with their poses, one loaded model, and poses as JSON lines.

    python samples/gstreamer/camera_wall.py door=rtsp://camera1/stream yard=rtsp://camera2/stream --output wall.mp4

A camera that dies leaves a dim tile and comes back; the others go on. Every line on standard output is one result, and
`source` in it is the camera's name. Poses are drawn before the tiles are put together: metadata ends there.
"""

import argparse
import math
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from encoders import H264, VP8, encoder
from reconnect import add_options, head, quoted, run, window
from recovery import Source, uri_of

from posesdk.gst import register
from posesdk.gst.bindings import GLib, Gst

BAR = 32
"""Height of the line with a camera's name above its picture, in pixels."""
FILES = {
    ".mp4": (H264, "h264parse ! mp4mux fragment-duration=1000 fragment-mode=first-moov-then-finalise"),
    ".webm": (VP8, "webmmux"),
}
"""By the end of a file's name: encoders and container; a crash leaves a file that plays."""
DIM = 0.3
"""What is left of a tile's brightness while its camera is away."""


@dataclass
class Tile:
    name: str
    uri: str
    x: int
    y: int
    source: Source = field(init=False)
    poses: int = 0
    people: int = 0
    seen: tuple[float, int, int] = field(default_factory=lambda: (time.monotonic(), 0, 0))
    text: str = "waiting"

    def update(self) -> None:
        """Rates since the last call."""
        then, frames, poses = self.seen
        now = time.monotonic()
        self.seen = (now, self.source.frames, self.poses)
        if self.source.alive:
            rate, looked = ((new - old) / (now - then) for new, old in zip(self.seen[1:], (frames, poses), strict=True))
            self.text = f"{rate:.0f} fps, poses {looked:.0f}/s, people {self.people}"
        else:
            away = now - self.source.last_frame
            self.text = "ended" if self.source.ended else f"no picture for {away:.0f} s" if frames else "waiting"


def place_tiles(sources: list[str], width: int, height: int) -> tuple[list[Tile], int, int]:
    """The tiles in a grid that is about as wide as high, its columns and rows; names are NAME=URI's or cam1, cam2..."""
    columns = math.ceil(math.sqrt(len(sources)))
    tiles = []
    for index, given in enumerate(sources):
        name, equals, place = given.partition("=")
        if not equals or "/" in name:  # a URI may hold an equals sign
            name, place = f"cam{index + 1}", given
        row, column = divmod(index, columns)
        tiles.append(Tile(name, uri_of(place), column * width, row * height))
    return tiles, columns, math.ceil(len(tiles) / columns)


def paint_board(tiles: list[Tile], board: np.ndarray) -> bytes:
    """The lowest layer (H, W, 3) BGR: black where no picture is, above every tile its name and what it does."""
    board[:] = 0
    for tile in tiles:
        place = (tile.x + 8, tile.y + BAR - 10)
        cv2.putText(
            board, f"{tile.name}: {tile.text}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA
        )
    return board.tobytes()


def describe(tiles: list[Tile], options: argparse.Namespace, size: tuple[int, int], sink: str) -> str:
    """The pipeline: a board and all tiles into one compositor."""
    pads, branches = [], []
    for index, tile in enumerate(tiles):
        box = f"xpos={tile.x} ypos={tile.y + BAR} width={options.width} height={options.height - BAR}"
        pads.append(" ".join(f"sink_{index + 1}::{one}" for one in f"{box} sizing-policy=keep-aspect-ratio".split()))
        settings = f"draw=true instance-id=wall stream-id={quoted(tile.name)}"
        part = head(tile.uri, options, name=f"pose{index}", settings=settings)
        branches.append(f"{part} ! queue leaky=downstream max-size-buffers=2 ! wall.sink_{index + 1}")
    rate = f"framerate={options.fps}/1"
    board = (
        f"appsrc name=board is-live=true do-timestamp=true format=time max-bytes=20000000 "
        f"caps=video/x-raw,format=BGR,width={size[0]},height={size[1]},{rate} ! queue ! videoconvert ! wall.sink_0"
    )
    # Format and colors are held: the compositor would take those of the first picture, and change them with the next.
    caps = f"video/x-raw,format=I420,colorimetry=bt709,width={size[0]},height={size[1]},{rate}"
    wall = f"compositor name=wall background=black {' '.join(pads)} ! {caps}"
    return " ".join([f"{wall} ! queue name=end ! {sink}", board, *branches])


def output(options: argparse.Namespace) -> str:
    """The end of the pipeline."""
    if options.output == "window":
        return window()
    if options.output == "none":
        return "fakesink sync=true async=false"
    if (kind := Path(options.output).suffix) not in FILES:
        sys.exit(f"--output {options.output}: expected window, none, or a file that ends in {' or '.join(FILES)}")
    names, mux = FILES[kind]
    encode = encoder(names, bits=4_000_000, gop=2 * options.fps)
    # The compositor may give its first frames one time (1.22), and mp4mux ends there; videorate does not.
    return f"videorate ! {encode} ! {mux} ! filesink async=false location={quoted(options.output)}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "sources", nargs="+", metavar="[NAME=]SOURCE", help="URI of a camera (rtsp://...) or a video file"
    )
    parser.add_argument("--output", default="window", help="window, none, or an .mp4 or .webm file")
    parser.add_argument("--width", type=int, default=640, help="of a tile, in pixels")
    parser.add_argument("--height", type=int, default=392, help=f"of a tile, {BAR} of it for its name")
    parser.add_argument("--fps", type=int, default=25, help="of the wall")
    parser.add_argument("--loop", action="store_true", help="play files again and again")
    add_options(parser)
    parser.set_defaults(mode="skip")
    options = parser.parse_args()
    register()
    tiles, columns, rows = place_tiles(options.sources, options.width, options.height)
    size = (columns * options.width, rows * options.height)
    pipeline = Gst.parse_launch(describe(tiles, options, size, output(options)))
    return play(pipeline, tiles, options, np.zeros((size[1], size[0], 3), np.uint8))


def play(pipeline: Gst.Pipeline, tiles: list[Tile], options: argparse.Namespace, board: np.ndarray) -> int:
    feed, wall = pipeline.get_by_name("board"), pipeline.get_by_name("wall")
    for index, tile in enumerate(tiles):
        entry = pipeline.get_by_name(f"pose{index}-entry")
        patience = {"silence": options.silence, "longest_wait": options.longest_wait}
        tile.source = Source(pipeline, entry, tile.uri, name=tile.name, pace=True, loop=options.loop, **patience)
        pipeline.get_by_name(f"pose{index}").connect("poses", heard, tile)

    def end() -> None:
        """Behind the compositor: tiles would vanish one by one."""
        pipeline.get_by_name("end").get_static_pad("sink").send_event(Gst.Event.new_eos())

    def refresh() -> bool:
        for index, tile in enumerate(tiles):
            tile.update()
            wall.get_static_pad(f"sink_{index + 1}").set_property("alpha", 1.0 if tile.source.alive else DIM)
        feed.emit("push-buffer", Gst.Buffer.new_wrapped(paint_board(tiles, board)))
        if all(tile.source.ended for tile in tiles):
            end()
        return True

    GLib.timeout_add(500, refresh)
    return run(pipeline, [tile.source for tile in tiles], seconds=options.seconds, ended=end)


def heard(_: Gst.Element, __: int, line: str, tile: Tile) -> None:
    """In a worker's thread: a result."""
    tile.poses += 1
    tile.people = line.count('"keypoints"')
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
