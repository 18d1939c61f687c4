"""A camera with its poses drawn, as RTP that WebRTC servers take, and as a camera of its own at rtsp://HOST:PORT/poses.

    python samples/gstreamer/rtsp_to_webrtc.py rtsp://camera/stream --rtsp-port 8554

MediaMTX (`paths: {poses: {source: "rtsp://HOST:8554/poses"}}`), go2rtc, Frigate and VLC read the RTSP; Janus takes the
RTP itself, which goes to --host and --rtp-port and is described by the .sdp file.
"""

import argparse
import sys
from pathlib import Path

from encoders import H264, VP8, encoder
from reconnect import add_options, head, run
from recovery import Source, say, uri_of

from posesdk.gst import register
from posesdk.gst.bindings import Gst

RTP = {
    "vp8": ("VP8", "rtpvp8pay name=pay", "rtpvp8depay ! rtpvp8pay"),
    "h264": ("H264", "h264parse ! rtph264pay name=pay config-interval=-1", "rtph264depay ! h264parse ! rtph264pay"),
}
"""The name in SDP, the payloader, and what takes the packets and packs them again for RTSP."""
PAYLOAD = 96


def describe(codec: str, host: str, port: int) -> str:
    """The .sdp file: what a receiver of bare RTP must know."""
    lines = [
        "v=0",
        f"o=- 0 0 IN IP4 {host}",
        "s=poses",
        f"c=IN IP4 {host}",
        "t=0 0",
        f"m=video {port} RTP/AVP {PAYLOAD}",
    ]
    lines.append(f"a=rtpmap:{PAYLOAD} {RTP[codec][0]}/90000")
    if codec == "h264":  # constrained baseline; the parameter sets come with every key frame
        lines.append(f"a=fmtp:{PAYLOAD} packetization-mode=1;profile-level-id=42e01f")
    return "\r\n".join([*lines, "a=recvonly", ""])


def publish(codec: str, rtp_port: int, rtsp_port: int) -> object:
    """An RTSP server in this process that passes the packets on to all clients; must be kept by the caller."""
    import gi

    try:
        gi.require_version("GstRtspServer", "1.0")
        from gi.repository import GstRtspServer
    except (ImportError, ValueError) as error:
        sys.exit(f"--rtsp-port needs an RTSP server ({error}): apt-get install gir1.2-gst-rtsp-server-1.0")
    server = GstRtspServer.RTSPServer.new()
    server.set_service(str(rtsp_port))
    factory = GstRtspServer.RTSPMediaFactory.new()
    caps = f"application/x-rtp,media=video,clock-rate=90000,payload={PAYLOAD},encoding-name={RTP[codec][0]}"
    factory.set_launch(
        f'( udpsrc address=127.0.0.1 port={rtp_port} buffer-size=1000000 caps="{caps}" ! rtpjitterbuffer latency=50 '
        f"! {RTP[codec][2]} name=pay0 pt={PAYLOAD} )"
    )
    factory.set_shared(True)  # one reader of the port, however many clients
    factory.set_latency(0)
    server.get_mount_points().add_factory("/poses", factory)
    if not server.attach(None):
        sys.exit(f"--rtsp-port {rtsp_port}: cannot listen there; another program may: choose another port")
    say(f"serving rtsp://localhost:{server.get_bound_port()}/poses")
    return server


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("source", help="URI of a camera (rtsp://...) or a video file, which is played at its own speed")
    parser.add_argument("--codec", default="auto", choices=("auto", *RTP), help="default: h264 where it is, else vp8")
    parser.add_argument("--host", default="127.0.0.1", help="who receives the RTP")
    parser.add_argument("--rtp-port", type=int, default=5004, help="even; two more feeds the RTSP server here")
    parser.add_argument("--rtsp-port", type=int, help="serve RTSP here, 0: any port")
    parser.add_argument("--sdp", type=Path, help="write the description of the RTP here")
    parser.add_argument("--fps", type=int, default=25, help="frames per second of the camera, for the key frames")
    parser.add_argument("--bitrate", type=int, default=2000, help="kbit/s")
    parser.add_argument("--encoder", default="auto", choices=("auto", *H264, *VP8))
    parser.add_argument("--loop", action="store_true", help="play a file again and again")
    add_options(parser)
    options = parser.parse_args()
    register()
    uri, codec = uri_of(options.source), options.codec
    if codec == "auto":
        codec = "h264" if any(Gst.ElementFactory.find(name) for name in H264) else "vp8"
    names = H264 if codec == "h264" else VP8
    # A viewer that joins waits for a key frame: one a second.
    encode = encoder(names, bits=1000 * options.bitrate, gop=options.fps, wanted=options.encoder)
    receivers = f"{options.host}:{options.rtp_port},127.0.0.1:{options.rtp_port + 2}"
    pipeline = Gst.parse_launch(
        f"{head(uri, options, settings='draw=true')} ! {encode} ! {RTP[codec][1]} pt={PAYLOAD} mtu=1200 "
        f"! multiudpsink clients={receivers} sync=false async=false"
    )
    if options.sdp:
        options.sdp.write_text(describe(codec, options.host, options.rtp_port))
        say(f"wrote {options.sdp}")
    server = publish(codec, options.rtp_port + 2, options.rtsp_port) if options.rtsp_port is not None else None
    entry = pipeline.get_by_name("pose-entry")
    patience = {"silence": options.silence, "longest_wait": options.longest_wait}
    status = run(
        pipeline, [Source(pipeline, entry, uri, pace=True, loop=options.loop, **patience)], seconds=options.seconds
    )
    del server
    return status


if __name__ == "__main__":
    sys.exit(main())
