"""One GStreamer element between two bare pads: no pipeline, no threads, a clock only where a test gives one.

`GstCheck.Harness` cannot be used from Python. Imports GStreamer: import it inside fixtures and tests.
"""

import numpy as np

from posesdk.gst.bindings import Gst, GstVideo

NONE = Gst.CLOCK_TIME_NONE
MATRIX = np.float64([[0.257, 0.504, 0.098], [-0.148, -0.291, 0.439], [0.439, -0.368, -0.071]])
"""BT.601 in video range: Y, U, V (rows) from R, G, B, without the offsets 16, 128, 128."""


class PadHarness:
    """Pushes into an element's sink pad and collects what comes out of it, around it and on its bus.

    `live` is what the source answers to latency queries: True, False, or None for no answer. `buffers` and `events`
    came downstream, `upstream` are the events that went the other way.
    """

    def __init__(self, element, *, live=None, clock=None, latency=(0, NONE)):
        self.element, self.bus = element, Gst.Bus.new()
        self.buffers, self.events, self.upstream = [], [], []
        # As in any pipeline: PyGObject 3.50 never frees an element in Python that was in no bin.
        self._bin = Gst.Bin.new()
        self._bin.add(element)
        self.source, self.sink = _any_pad("source", Gst.PadDirection.SRC), _any_pad("sink", Gst.PadDirection.SINK)
        self._connect(live, latency, self.buffers, self.events, self.upstream)
        element.set_bus(self.bus)
        element.set_base_time(0)
        if clock is not None:
            element.set_clock(clock)
        self.source.set_active(True)
        self.sink.set_active(True)
        self.format, self._segment = None, False

    def _connect(self, live, latency, buffers, events, upstream):
        """The functions of the pads hold only lists: what they held of the harness would never be freed."""

        def on_query(pad, parent, query):
            if query.type != Gst.QueryType.LATENCY:
                return pad.query_default(parent, query)
            if live is not None:
                query.set_latency(live, *latency)
            return live is not None

        def on_chain(pad, parent, buffer):
            buffers.append(buffer)
            return Gst.FlowReturn.OK

        self.source.set_query_function(on_query)
        self.source.set_event_function(lambda pad, parent, event: upstream.append(event) or True)
        self.sink.set_chain_function(on_chain)
        self.sink.set_event_function(lambda pad, parent, event: events.append(event) or True)
        assert self.source.link(self.element.get_static_pad("sink")) == Gst.PadLinkReturn.OK
        assert self.element.get_static_pad("src").link(self.sink) == Gst.PadLinkReturn.OK

    def start(self, state=Gst.State.PLAYING):
        """Returns what the state change returned."""
        return self.element.set_state(state)

    def stop(self):
        """Stops the element and forgets the events that were sent: a start after it begins anew."""
        result = self.element.set_state(Gst.State.NULL)
        self.source.set_active(False)
        self.source.set_active(True)
        self._segment = False
        return result

    def close(self):
        """Stops the element and lets go of it."""
        self.stop()
        self.bus.set_flushing(True)
        self.source.set_active(False)
        self.sink.set_active(False)
        self.source.unlink(self.element.get_static_pad("sink"))
        self.element.get_static_pad("src").unlink(self.sink)
        self.element.set_clock(None)
        self._bin.remove(self.element)
        self.element.set_bus(None)
        self.element = None

    def set_format(self, name, width, height, fps=30):
        """Sends the events that come before the frames of a format; returns whether they were taken."""
        text = f"video/x-raw, format={name}, width={width}, height={height}, framerate={fps}/1"
        self.format = Gst.Caps.from_string(text + ", pixel-aspect-ratio=1/1, interlace-mode=progressive")
        if not self._segment:
            self.send(Gst.Event.new_stream_start("stream"))
        taken = self.send(Gst.Event.new_caps(self.format))
        if not self._segment:
            self.send_segment()
        return taken

    def send_segment(self):
        self._segment = True
        segment = Gst.Segment.new()
        segment.init(Gst.Format.TIME)
        return self.send(Gst.Event.new_segment(segment))

    def send(self, event):
        """Sends an event downstream."""
        return self.source.push_event(event)

    def query_latency(self):
        """What the element's source pad answers: (live, min, max)."""
        query = Gst.Query.new_latency()
        assert self.sink.peer_query(query)
        return tuple(query.parse_latency())

    def push(self, picture, pts=NONE, *, padding=None, flags=()):
        """Pushes a picture (H, W, 3) BGR in the format that was set; returns the flow. See `make_buffer`."""
        return self.source.push(self.make_buffer(picture, pts, padding=padding, flags=flags))

    def make_buffer(self, picture, pts=NONE, *, padding=None, flags=()):
        """With `padding`, rows have so many more bytes and planes one more row, and a VideoMeta says so."""
        info = GstVideo.VideoInfo.new_from_caps(self.format)
        planes = to_planes(picture, info.finfo.name)
        count = info.finfo.n_planes
        strides, offsets, size = list(info.stride)[:count], list(info.offset)[:count], info.size
        if padding is not None:
            strides = [plane.shape[1] + padding for plane in planes]
            ends = np.cumsum([(len(plane) + 1) * stride for plane, stride in zip(planes, strides, strict=True)])
            offsets, size = [padding + int(end) for end in (0, *ends[:-1])], padding + int(ends[-1])
        data = np.full(size, 0xA5, np.uint8)
        for plane, stride, offset in zip(planes, strides, offsets, strict=True):
            for row, line in enumerate(plane):
                data[offset + row * stride :][: len(line)] = line
        buffer = Gst.Buffer.new_wrapped(data.tobytes())
        buffer.pts = pts
        for flag in flags:
            buffer.set_flags(flag)
        if padding is not None:
            layout = info.width, info.height, count, _four(offsets), _four(strides)
            GstVideo.buffer_add_video_meta_full(buffer, GstVideo.VideoFrameFlags.NONE, info.finfo.format, *layout)
        return buffer

    def messages(self, kind):
        """The messages of a Gst.MessageType that were posted since the last call."""
        found = []
        while message := self.bus.pop_filtered(kind):
            found.append(message)
        return found

    def wait_for(self, kind, seconds=20):
        """The next message of that type; fails where none comes."""
        message = self.bus.timed_pop_filtered(seconds * Gst.SECOND, kind)
        assert message is not None, f"no {kind} came on the bus"
        return message


def _any_pad(name, direction):
    """A pad that takes any format; one without a template takes none but its first."""
    return Gst.Pad.new_from_template(
        Gst.PadTemplate.new(name, direction, Gst.PadPresence.ALWAYS, Gst.Caps.new_any()), name
    )


def _four(numbers):
    return [*numbers, 0, 0, 0, 0][:4]


def to_planes(picture, name):
    """The planes of a picture (H, W, 3) BGR in a format: (rows, bytes of a row) uint8 each, without padding."""
    height = len(picture)
    if set("RGBAx") >= set(name):
        pixels = [
            np.full_like(picture[..., 0], 255) if part in "Ax" else picture[..., "BGR".index(part)] for part in name
        ]
        return [np.stack(pixels, axis=2).reshape(height, -1)]
    luma, *chroma = _to_yuv(picture)
    if name == "GRAY8":
        return [luma]
    small = [plane[::2, ::2] for plane in chroma]
    return [luma, *small] if name == "I420" else [luma, np.stack(small, axis=2).reshape(len(small[0]), -1)]


def from_planes(planes, name, width):
    """The BGR picture that the planes show: computed in floating point, chroma of the nearest sample."""
    if set("RGBAx") >= set(name):
        pixels = planes[0].reshape(len(planes[0]), width, len(name))
        return np.ascontiguousarray(pixels[..., [name.index(part) for part in "BGR"]])
    if name == "GRAY8":
        return planes[0][..., None].repeat(3, axis=2)
    chroma = planes[1:] if name == "I420" else [planes[1][:, 0::2], planes[1][:, 1::2]]
    large = [plane.repeat(2, axis=0).repeat(2, axis=1)[: len(planes[0]), :width] for plane in chroma]
    yuv = np.stack([planes[0], *large], axis=2) - np.float64([16, 128, 128])
    rgb = yuv @ np.linalg.inv(MATRIX).T
    return rgb[..., ::-1].round().clip(0, 255).astype(np.uint8)


def _to_yuv(picture):
    yuv = picture[..., ::-1] @ MATRIX.T + [16, 128, 128]
    return np.moveaxis(yuv.round().astype(np.uint8), 2, 0)
