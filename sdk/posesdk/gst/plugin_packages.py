"""What to do where an element is missing or cannot be linked. Imports nothing of GStreamer."""

import difflib
import re

__all__ = ["H264_DECODERS", "advice_for", "package_of"]

_GSTREAMER = "gstreamer1.0-"
_ELEMENTS = {
    "tools": "",
    "plugins-base": "appsink appsrc compositor decodebin decodebin3 playbin playbin3 tcpclientsrc tcpserversink "
    "uridecodebin uridecodebin3 urisourcebin videoconvert videorate videoscale",
    "plugins-good": "autovideosink cairooverlay flvmux imagefreeze jpegdec jpegenc matroskademux matroskamux mp4mux "
    "multifilesink multifilesrc multipartmux pngdec pngenc pulsesink qtdemux rtph264depay rtph264pay rtph265depay "
    "rtpjpegdepay rtpvp8depay rtpvp8pay rtspsrc souphttpsrc splitmuxsink udpsink udpsrc v4l2src v4l2h264dec "
    "videobox videocrop videoflip vp8dec vp8enc vp9dec vp9enc",
    "plugins-bad": "fakevideosink fpsdisplaysink h264parse h265parse hlsdemux hlssink hlssink2 kmssink mpegtsmux "
    "openh264dec openh264enc rtmpsink rtmp2sink srtsink srtsrc tsdemux waylandsink webrtcbin",
    "plugins-ugly": "x264enc",
    "libav": "avdec_h264 avdec_h265 avdec_mpeg4 avenc_mpeg4",
    "x": "textoverlay timeoverlay clockoverlay ximagesink xvimagesink",
    "gl": "glimagesink gldownload glupload",
    "alsa": "alsasink",
    "libcamera": "libcamerasrc",
    "rtsp": "rtspclientsink",
}
_PACKAGE = {name: _GSTREAMER + package for package, names in _ELEMENTS.items() for name in names.split()}

H264_DECODERS = ("avdec_h264", "openh264dec", "v4l2h264dec", "v4l2slh264dec", "nvv4l2decoder", "vah264dec", "nvh264dec")
"""Any one of these decodes what cameras and phones send."""

OWN = ("logocappose", "logocapposejson", "logocapoverlay")

_KINDS = {"H.264": "libav", "H.265": "libav", "HEVC": "libav"}


def package_of(element: str) -> str | None:
    """The Debian package of an element, where it is a known one."""
    return _PACKAGE.get(element)


def advice_for(message: str) -> str:
    """What to append to a message that says that an element or a decoder is missing, or that nothing can be linked to
    an element of this package; empty for any other one.
    """
    named = re.search(r'no element "([^"]+)"', message)
    if named is not None:
        return _advice_for_element(named[1])
    if linked := re.search(r"could not link .*\b(logocappose|logocapoverlay)\d* *(,|$)", message):
        if "memory:" in message:
            return f"; {linked[1]} takes frames in ordinary memory: copy them out first, on a Jetson with nvvidconv"
        return f"; {linked[1]} takes raw video alone: put videoconvert before it, behind decodebin for what is encoded"
    package = next((package for kind, package in _KINDS.items() if kind in message and "decoder" in message), None)
    return f"; run: apt-get install {_GSTREAMER}{package}" if package else ""


def _advice_for_element(name: str) -> str:
    if package := package_of(name):
        return f"; run: apt-get install {package}"
    alike = difflib.get_close_matches(name, (*OWN, *_PACKAGE), n=1, cutoff=0.8)
    return f"; is {alike[0]} meant?" if alike else "; look at the plugins with: posesdk doctor"
