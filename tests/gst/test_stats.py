import json

from posesdk.gst.stats import Stats


def test_counts_and_percentiles_are_those_of_what_happened():
    stats = Stats()
    for _ in range(5):
        stats.count("frames")
    stats.count("skipped")
    stats.count("dropped")
    for persons, spent in ((2, 10.0), (0, 30.0), (1, 20.0)):
        stats.inferred(persons, spent)
    read = json.loads(stats.to_json(mode="skip"))
    assert (read["frames"], read["inferred"], read["skipped"], read["dropped"], read["persons"]) == (5, 3, 1, 1, 3)
    assert (read["infer_ms_p50"], read["infer_ms_p95"], read["mode"]) == (20.0, 30.0, "skip")


def test_an_element_that_did_nothing_has_no_times():
    read = json.loads(Stats().to_json())
    assert read["frames"] == 0
    assert read["infer_ms_p50"] is read["infer_ms_p95"] is read["fps"] is None


def test_the_frame_rate_counts_intervals_between_frames(monkeypatch):
    now = iter([10.0, 10.5, 11.0, 11.5, 12.0])
    monkeypatch.setattr("posesdk.gst.stats.time.monotonic", lambda: next(now))
    stats = Stats()
    for _ in range(5):
        stats.left()
    assert json.loads(stats.to_json())["fps"] == 2.0
