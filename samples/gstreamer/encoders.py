"""The video encoders of the samples: the first that is installed, set for little delay and for browsers."""

import sys

from posesdk.gst.bindings import Gst

H264 = {
    "nvv4l2h264enc": "nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! nvv4l2h264enc bitrate={bits} "
    "iframeinterval={gop} idrinterval={gop} insert-sps-pps=true",
    "v4l2h264enc": 'v4l2h264enc extra-controls="controls,video_bitrate={bits},h264_i_frame_period={gop},'
    'repeat_sequence_header=1" ! video/x-h264,level=(string)4',
    "x264enc": "x264enc tune=zerolatency speed-preset=veryfast bitrate={kbits} key-int-max={gop} "
    "! video/x-h264,profile=constrained-baseline",
    "openh264enc": "openh264enc complexity=low rate-control=bitrate bitrate={bits} gop-size={gop} "
    "! video/x-h264,profile=constrained-baseline",
}
"""Boards first. Constrained baseline has no B-frames, which cost delay, and every browser decodes it."""
VP8 = {"vp8enc": "vp8enc deadline=1 cpu-used=8 lag-in-frames=0 target-bitrate={bits} keyframe-max-dist={gop}"}
"""lag-in-frames: no frame waits for later ones; deadline=1: as fast as the camera."""


def encoder(names: dict[str, str], *, bits: int, gop: int, wanted: str = "auto") -> str:
    """The description of an encoder: `bits` per second, a key frame after `gop` frames; exits where there is none.

    GStreamer knows an encoder that its board lacks on some boards: then name another one.
    """
    found = [name for name in names if wanted in ("auto", name) and Gst.ElementFactory.find(name)]
    if not found:
        looked = ", ".join(names) if wanted == "auto" else wanted
        sys.exit(
            f"no encoder of {looked} here; openh264enc is in gstreamer1.0-plugins-bad, x264enc (GPL) in "
            "gstreamer1.0-plugins-ugly, vp8enc in gstreamer1.0-plugins-good"
        )
    return "videoconvert ! " + names[found[0]].format(bits=bits, kbits=bits // 1000, gop=gop)
