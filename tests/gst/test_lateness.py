from posesdk.gst.lateness import WINDOW_NS, Lateness

FRAME = 33_000_000


def arrivals(lateness, frames):
    """For frames of (now, due), whether each is late by more than one frame."""
    return [lateness.is_late(now, due, FRAME) for now, due in frames]


def test_a_steady_source_is_never_late_however_large_its_own_delay_is():
    jitter_buffer = 2_000_000_000
    frames = [(index * FRAME + jitter_buffer, index * FRAME) for index in range(20)]
    assert arrivals(Lateness(), frames) == [False] * 20


def test_frames_that_piled_up_behind_a_slow_one_are_late_until_the_newest():
    blocked_until = 5 * FRAME
    frames = [(0, 0)] + [(blocked_until, index * FRAME) for index in range(1, 6)]
    assert arrivals(Lateness(), frames) == [False, True, True, True, False, False]


def test_a_clock_that_drifts_makes_no_frame_late():
    slow_by = 1.0001  # a camera's clock of 100 ppm: 3.6 frames in 20 minutes
    frames = [(int(index * FRAME * slow_by), index * FRAME) for index in range(36_000)]
    assert not any(arrivals(Lateness(), frames))


def test_a_delay_that_stays_is_the_usual_one_after_two_windows():
    late = 10 * FRAME
    before = [(index * FRAME, index * FRAME) for index in range(10)]
    count = 3 * WINDOW_NS // FRAME
    after = [(index * FRAME + late, index * FRAME) for index in range(10, count)]
    lateness = Lateness()
    assert not any(arrivals(lateness, before))
    verdicts = arrivals(lateness, after)
    assert verdicts[0]
    assert not verdicts[-1]


def test_after_a_flush_the_first_frame_sets_the_measure_anew():
    lateness = Lateness()
    arrivals(lateness, [(0, 0)])
    assert lateness.is_late(10 * FRAME, 0, FRAME)
    lateness.forget()
    assert not lateness.is_late(10 * FRAME, 0, FRAME)
