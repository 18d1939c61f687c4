"""A camera in the browser, with its poses drawn: HLS segments, a page that plays them, and the newest poses as JSON.

    python samples/gstreamer/rtsp_to_hls.py rtsp://camera/stream --output www --port 8080

Then open http://HOST:8080/. HLS is late by its nature, by about three segments; rtsp_to_webrtc.py is for less.
"""

import argparse
import functools
import http.server
import os
import sys
import threading
from pathlib import Path
from typing import TextIO

from encoders import H264, encoder
from reconnect import add_options, head, quoted, run
from recovery import Source, say, uri_of

from posesdk.gst import register
from posesdk.gst.bindings import Gst

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Poses</title>
<style>
body {margin: 0; background: #111; color: #ddd; font: 16px sans-serif}
video {width: 100%; max-height: 90vh}
p {margin: .6em}
</style>
<video id="video" controls autoplay muted playsinline></video><p id="state">loading</p><p id="people"></p>
<script>
const video = document.getElementById("video"), state = document.getElementById("state");
const list = "playlist.m3u8", say = text => { state.textContent = text; };
video.addEventListener("playing", () => say(`playing ${video.videoWidth}x${video.videoHeight}`));
video.addEventListener("error", () => say("cannot play: " + (video.error ? video.error.message : "?")));
function play() {
  if (video.canPlayType("application/vnd.apple.mpegurl")) { video.src = list; return; }
  const script = document.createElement("script");   // a copy beside this page, else from the net
  script.src = "hls.min.js";
  script.onload = () => { const hls = new Hls(); hls.loadSource(list); hls.attachMedia(video); };
  script.onerror = () => {
    if (script.src.startsWith("https:")) { say("cannot load hls.js, and this browser plays no HLS itself"); return; }
    const other = document.createElement("script");
    other.src = "https://cdn.jsdelivr.net/npm/hls.js@1/dist/hls.min.js";
    other.onload = script.onload;
    other.onerror = () => say("cannot load hls.js, and this browser plays no HLS itself");
    document.head.append(other);
  };
  document.head.append(script);
}
async function wait() {   // the first segment takes a while
  const answer = await fetch(list, {cache: "no-store"}).catch(() => null);
  if (answer && answer.ok) play(); else { say("waiting for the first segment"); setTimeout(wait, 1000); }
}
async function people() {
  const answer = await fetch("poses.json", {cache: "no-store"}).catch(() => null);
  if (answer && answer.ok) {
    const poses = await answer.json();
    document.getElementById("people").textContent = `people at the camera: ${poses.persons.length}`;
  }
  setTimeout(people, 500);
}
wait(); people();
</script></html>
"""
KINDS = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".ts": "video/mp2t",
    ".html": "text/html",
    ".json": "application/json",
}


class Files(http.server.SimpleHTTPRequestHandler):
    extensions_map = KINDS

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a player asks every second."""


def serve(folder: Path, port: int) -> None:
    server = http.server.ThreadingHTTPServer(("", port), functools.partial(Files, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say(f"open http://localhost:{server.server_port}/")


def keep(line: str, newest: Path, record: TextIO | None) -> None:
    """Replaces the newest poses at once, so that no reader sees half of them."""
    part = newest.with_suffix(".part")
    part.write_text(line)
    os.replace(part, newest)
    if record:
        print(line, file=record, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", help="URI of a camera (rtsp://...) or a video file")
    parser.add_argument("--output", type=Path, default=Path("www"), help="folder of the page and the segments")
    parser.add_argument("--port", type=int, help="serve the folder here, 0: any port (default: a web server does it)")
    parser.add_argument("--poses", type=Path, help="append all poses to this file, as JSON lines")
    parser.add_argument("--segment", type=int, default=2, help="seconds of a segment: shorter is less delay")
    parser.add_argument("--keep", type=int, default=6, help="segments in the playlist; 0: all of them, for ever")
    parser.add_argument("--fps", type=int, default=25, help="frames per second of the camera, for the key frames")
    parser.add_argument("--bitrate", type=int, default=2000, help="kbit/s")
    parser.add_argument("--encoder", default="auto", choices=("auto", *H264))
    add_options(parser)
    options = parser.parse_args()
    register()
    uri, folder = uri_of(options.source), options.output
    # A key frame a second. Those that hlssink2 itself asks for stay away after a camera came back (GStreamer 1.22).
    encode = encoder(H264, bits=1000 * options.bitrate, gop=options.fps, wanted=options.encoder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("segment*.ts"), folder / "playlist.m3u8", folder / "poses.json"):
        old.unlink(missing_ok=True)  # a player would begin with yesterday's
    (folder / "index.html").write_text(PAGE)
    pipeline = Gst.parse_launch(
        f"{head(uri, options, settings='draw=true')} ! {encode} ! h264parse config-interval=-1 ! hlssink2 "
        f"location={quoted(str(folder / 'segment%05d.ts'))} playlist-location={quoted(str(folder / 'playlist.m3u8'))} "
        f"send-keyframe-requests=false target-duration={options.segment} playlist-length={options.keep} "
        f"max-files={options.keep and options.keep + 4}"
    )
    record = options.poses.open("a") if options.poses else None
    newest = folder / "poses.json"
    pipeline.get_by_name("pose").connect("poses", lambda _, __, line: keep(line, newest, record))
    if options.port is not None:
        serve(folder, options.port)
    entry = pipeline.get_by_name("pose-entry")
    patience = {"silence": options.silence, "longest_wait": options.longest_wait}
    source = Source(pipeline, entry, uri, gapless=True, **patience)
    return run(pipeline, [source], seconds=options.seconds)


if __name__ == "__main__":
    sys.exit(main())
