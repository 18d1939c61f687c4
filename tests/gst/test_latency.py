"""The latency that an element reports for the time it needs, on a plain element with a stand-in for upstream."""

import gc
import time
import weakref
from types import SimpleNamespace

import pytest

from posesdk.gst import why_unavailable

reason = why_unavailable()
pytestmark = pytest.mark.skipif(reason is not None, reason=reason or "")

SECOND = 1_000_000_000
UNLIMITED = 2**64 - 1


@pytest.fixture
def chain():
    """`chain(answer)`: an element behind a pad that answers latency queries with (live, min, max), or with None."""
    from posesdk.gst.bindings import Gst
    from posesdk.gst.latency import LatencyReport

    made = []

    def build(answer):
        element, upstream = Gst.ElementFactory.make("identity"), Gst.Pad.new("src", Gst.PadDirection.SRC)

        def on_query(pad, parent, query):
            if query.type != Gst.QueryType.LATENCY or answer is None:
                return False
            query.set_latency(*answer)
            return True

        upstream.set_query_function(on_query)
        bus = Gst.Bus.new()
        element.set_bus(bus)
        upstream.set_active(True)
        upstream.link(element.get_static_pad("sink"))
        element.set_state(Gst.State.PAUSED)
        report = LatencyReport(element, element.get_static_pad("src"))
        made.append(element)
        return SimpleNamespace(element=element, bus=bus, report=report, upstream=upstream)

    yield build
    for element in made:
        element.set_state(Gst.State.NULL)


def answered(chain):
    from posesdk.gst.bindings import Gst

    query = Gst.Query.new_latency()
    if not chain.element.get_static_pad("src").query(query):
        return None
    return tuple(query.parse_latency())


def announcements(chain):
    from posesdk.gst.bindings import Gst

    count = 0
    while chain.bus.pop_filtered(Gst.MessageType.LATENCY):
        count += 1
    return count


@pytest.mark.parametrize(("answer", "live"), [((True, 5, 10), True), ((False, 0, UNLIMITED), False), (None, False)])
def test_a_source_is_live_only_where_it_says_so(chain, answer, live):
    from posesdk.gst.latency import is_live

    assert is_live(chain(answer).element.get_static_pad("sink")) is live


def test_a_pad_that_is_linked_to_nothing_is_not_live():
    from posesdk.gst.bindings import Gst
    from posesdk.gst.latency import is_live

    assert is_live(Gst.ElementFactory.make("identity").get_static_pad("sink")) is False


def test_the_time_for_a_frame_is_added_with_a_twentieth_more(chain):
    some = chain((True, SECOND, 3 * SECOND))
    some.report.enabled = True
    some.report.observe(0.1)
    assert answered(some) == (True, SECOND + 105_000_000, 3 * SECOND + 105_000_000)


def test_a_source_without_limit_keeps_none(chain):
    some = chain((True, 7, UNLIMITED))
    some.report.enabled = True
    some.report.observe(0.2)
    assert answered(some) == (True, 7 + 210_000_000, UNLIMITED)


def test_nothing_is_added_before_the_first_measurement_nor_where_the_element_does_not_wait(chain):
    some = chain((True, 3, 4))
    some.report.enabled = True
    assert answered(some) == (True, 3, 4)
    some.report.enabled = False
    some.report.observe(0.1)
    assert answered(some) == (True, 3, 4)
    assert announcements(some) == 0


def test_where_upstream_does_not_answer_the_time_is_added_to_no_latency(chain):
    some = chain(None)
    some.report.enabled = True
    some.report.observe(0.1)
    assert answered(some) == (False, 105_000_000, UNLIMITED)


def test_queries_of_other_types_pass(chain):
    from posesdk.gst.bindings import Gst

    some = chain((True, 0, 0))
    some.report.enabled = True
    some.report.observe(0.1)
    some.upstream.set_query_function(lambda pad, parent, query: query.set_duration(Gst.Format.TIME, 42) or True)
    query = Gst.Query.new_duration(Gst.Format.TIME)
    assert some.element.get_static_pad("src").query(query)
    assert query.parse_duration() == (Gst.Format.TIME, 42)


def test_a_steady_time_is_announced_once_and_a_drift_of_more_than_a_quarter_again(chain):
    some = chain((True, 0, UNLIMITED))
    some.report.enabled = True
    for _ in range(10):
        some.report.observe(0.1)
    assert announcements(some) == 1
    for _ in range(50):
        some.report.observe(0.12)  # a fifth more
    assert announcements(some) == 0
    assert answered(some)[1] == 105_000_000
    for _ in range(50):
        some.report.observe(0.2)
    assert 1 <= announcements(some) <= 4  # 0.1 to 0.2 in steps of a quarter takes log(2) / log(1.25) = 3.1
    assert answered(some)[1] > 1.05 * 0.16 * SECOND


def test_one_slow_frame_among_many_is_not_announced(chain):
    some = chain((True, 0, UNLIMITED))
    some.report.enabled = True
    for _ in range(10):
        some.report.observe(0.1)
    announcements(some)
    some.report.observe(0.25)
    assert announcements(some) == 0


def test_a_closed_report_is_out_of_the_way_of_the_next_one(chain):
    from posesdk.gst.latency import LatencyReport

    some = chain((True, 1, 2))
    some.report.enabled = True
    some.report.observe(0.1)
    some.report.close()
    assert answered(some) == (True, 1, 2)
    some.report.close()
    following = LatencyReport(some.element, some.element.get_static_pad("src"))
    following.enabled = some.report.enabled = True
    following.observe(0.3)
    assert answered(some)[1] == 1 + 315_000_000


def test_the_element_is_freed_with_its_report(chain):
    from posesdk.gst.bindings import Gst
    from posesdk.gst.latency import LatencyReport

    element = Gst.ElementFactory.make("identity")
    pad = element.get_static_pad("src")
    report = LatencyReport(element, pad)
    report.enabled = True
    report.observe(0.1)
    freed = []
    element.weak_ref(lambda: freed.append("element"))
    gone = weakref.ref(element)
    del element, pad
    gc.collect()
    assert gone() is None
    assert freed == ["element"]
    report.observe(0.5)  # nobody there to announce it to
    report.close()


def test_sinks_of_a_live_pipeline_wait_for_the_model(converted_bundle):
    import posesdk.gst
    from posesdk.gst.bindings import Gst

    posesdk.gst.register()
    pipeline = Gst.parse_launch(
        "videotestsrc is-live=true ! video/x-raw, format=RGB, width=96, height=64, framerate=10/1 ! logocappose "
        f"name=pose mode=sync runtime=onnxruntime threads=1 model={converted_bundle} "
        "! fakesink name=sink sync=true processing-deadline=0"
    )
    bus, sink, pose = pipeline.get_bus(), pipeline.get_by_name("sink"), pipeline.get_by_name("pose")
    wanted = Gst.MessageType.LATENCY | Gst.MessageType.ERROR
    try:
        pipeline.set_state(Gst.State.PLAYING)
        end = time.monotonic() + 20
        while True:  # as applications do it: the first announcement may come before the sink has a frame
            assert time.monotonic() < end
            message = bus.timed_pop_filtered(Gst.SECOND // 10, wanted)
            assert message is None or message.type == Gst.MessageType.LATENCY, message.parse_error()
            pipeline.recalculate_latency()
            query = Gst.Query.new_latency()
            if pose.get_static_pad("sink").peer_query(query) and sink.get_latency() > query.parse_latency()[1] > 0:
                break
    finally:
        pipeline.set_state(Gst.State.NULL)
