"""What is measured: the pipelines, and what they are held to."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scenario:
    """One pipeline around `logocappose`; `element` "" is the same without it, `alone` the Detector without any."""

    name: str
    title: str
    element: str = "logocappose"
    before: str = ""
    slow: bool = False
    int8: bool = False
    streams: int = 1
    empty: bool = False
    rtsp: bool = False
    alone: bool = False


LEAKY = "queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0 !"
SET_UPS = (
    ("naive", "sync alone", "logocappose mode=sync", ""),
    ("leaky", "leaky queue, sync", "logocappose mode=sync", LEAKY),
    ("drop", "drop", "logocappose mode=drop", ""),
    ("skip", "skip", "logocappose mode=skip", ""),
    ("interval", "sync, interval=4", "logocappose mode=sync interval=4", ""),
)
SHARED = "logocappose mode=skip instance-id=shared"
FOUR_STREAMS = (
    ("four", "4 streams, one model", SHARED),
    ("four-batch", "the same, batch=4", f"{SHARED} options=batch=4"),
)

SCENARIOS = (
    *(Scenario(name, title, element, before) for name, title, element, before in SET_UPS),
    *(Scenario(f"slow-{name}", title, element, before, slow=True) for name, title, element, before in SET_UPS),
    *(Scenario(name, title, element, streams=4) for name, title, element in FOUR_STREAMS),
    *(
        Scenario(f"slow-{name}", f"{title}, slow", element, streams=4, slow=True)
        for name, title, element in FOUR_STREAMS
    ),
    Scenario("idle-without", "no element", "", empty=True),
    Scenario("idle", "skip", "logocappose mode=skip", empty=True),
    Scenario("idle-int8", "skip, int8", "logocappose mode=skip", int8=True, empty=True),
    Scenario("idle-detector", "no pipeline: a Detector, 30 a second", empty=True, alone=True),
    Scenario("idle-detector-int8", "the same, int8", int8=True, empty=True, alone=True),
    Scenario("rtsp", "skip, VP8 by RTSP over TCP", "logocappose mode=skip", rtsp=True),
)
