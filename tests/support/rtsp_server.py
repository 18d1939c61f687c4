"""A camera on the network: an RTSP server on the loopback that dies, and comes back on its port.

    python tests/support/rtsp_server.py [--port 0] [--size 320x240] [--video FILE.mkv]

As a program it prints its address and serves until its input ends or it is killed; `RtspServer` runs that program,
because killing a process is what comes closest to a camera that loses its power. The video is VP8: a moving test
picture, or a Matroska file, which ends with EOS.
"""

import argparse
import re
import select
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
PATH = "/camera"
PAY = "rtpvp8pay name=pay0 pt=96"
KEYFRAME_EVERY = 10
"""A client that joins sees a whole picture after at most this many frames."""
START_WITHIN_S = 30.0


class RtspServer:
    """Serves at `url` from `start` to `stop`, which may be called again and again; the port stays the first one's."""

    def __init__(self, *options: str) -> None:
        self._options, self._port = options, 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where clients find the stream, once it was started."""
        return f"rtsp://{HOST}:{self._port}{PATH}"

    def start(self) -> None:
        """Returns when it listens; RuntimeError where it does not."""
        command = [sys.executable, __file__, "--port", str(self._port), *self._options]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        said = ""
        if self._process.stdout is not None and select.select([self._process.stdout], [], [], START_WITHIN_S)[0]:
            said = self._process.stdout.readline()
        found = re.search(r":(\d+)/", said)
        if found is None:
            self.stop()
            raise RuntimeError(f"the RTSP server on {HOST} port {self._port} did not start; it said {said!r}")
        self._port = int(found[1])

    def stop(self) -> None:
        """Kills it: no goodbye to its clients; harmless when it does not run."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def __enter__(self) -> "RtspServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def serve(launch: str, port: int) -> None:
    """Listens, says where, and serves until the input ends, as it does with the process that started this one."""
    import gi

    for name in ("Gst", "GstRtsp", "GstRtspServer"):
        gi.require_version(name, "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_address(HOST)
    server.set_service(str(port))
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(launch)
    factory.set_shared(True)
    factory.set_latency(0)
    server.get_mount_points().add_factory(PATH, factory)
    server.attach(None)
    print(f"rtsp://{HOST}:{server.get_bound_port()}{PATH}", flush=True)  # noqa: T201  (a program of its own here)
    threading.Thread(target=GLib.MainLoop().run, daemon=True).start()
    sys.stdin.read()


def picture_launch(width: int, height: int) -> str:
    """A live test picture at 30 fps, encoded while it is served."""
    encode = f"vp8enc deadline=1 cpu-used=8 keyframe-max-dist={KEYFRAME_EVERY} lag-in-frames=0"
    caps = f"video/x-raw,format=I420,width={width},height={height},framerate=30/1"
    return f"( videotestsrc is-live=true pattern=ball ! {caps} ! {encode} ! {PAY} )"


def file_launch(path: Path) -> str:
    """The VP8 of a Matroska or WebM file, as it is, at the file's own pace."""
    return f'( filesrc location="{path}" ! matroskademux ! {PAY} )'


def main() -> None:
    """Serves one stream."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--size", default="320x240", help="of the test picture")
    parser.add_argument("--video", type=Path, help="a Matroska file with VP8; else a test picture")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    serve(file_launch(options.video) if options.video else picture_launch(width, height), options.port)


if __name__ == "__main__":
    main()
