"""The figures of each part of a benchmark, from laps and clocks that are known."""

import json
import subprocess
import sys

import numpy as np
import pytest

from posesdk.benchmark import throughput
from posesdk.benchmark.batches import BatchTimes
from posesdk.benchmark.entries import Entry, LeftOut, Selection, find_entries
from posesdk.benchmark.frames import PictureFrames
from posesdk.benchmark.latency import COLUMNS, TOTAL, frame_work
from posesdk.benchmark.people import PeopleTimes
from posesdk.benchmark.rounds import Budget, Rounds
from posesdk.benchmark.startup import measure_fresh
from posesdk.benchmark.throughput import Sustained, stream_rate
from posesdk.bundle import open_bundle
from posesdk.manifest import Variant
from posesdk.shipped import find_bundle
from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError


@pytest.fixture(scope="module")
def entry(tiny_folder) -> Entry:
    return find_entries([open_bundle(tiny_folder)], Selection(runtime=("onnxruntime",), threads=1))[0][0]


def rounds_of(laps) -> Rounds:
    rounds = Rounds([])
    rounds.laps = laps
    return rounds


def test_the_stages_of_a_frame_add_up_to_the_whole(entry):
    golden = entry.bundle.golden()
    frames = PictureFrames("golden", (("image.png", golden.image),))
    with entry.detector() as detector:
        lap = frame_work(detector, frames)(0)
        assert lap["people"] == len(detector(golden.picture()))
    assert all(lap[name] >= 0 for name in COLUMNS)
    assert sum(lap[name] for name in COLUMNS) == pytest.approx(lap[TOTAL], rel=1e-9)


@pytest.fixture
def people(entry, spots):
    """Makes `PeopleTimes` of an entry, with the laps of its rounds."""

    def make(counts, laps) -> PeopleTimes:
        made = PeopleTimes([entry], counts)
        pipeline = entry.pipeline()
        made.run([pipeline], spots([(50, 60)]), Budget(0.0, 1), lambda percent: None)
        pipeline.close()
        assert [lap["found"] for lap in made.rounds.laps[0]] == list(counts)
        made.rounds.laps = laps
        return made

    return make


def test_one_more_person_costs_the_slope_whatever_the_machine_does(people):
    counts, drifts = (1, 2, 4), (1.0, 3.0, 2.0, 1.2, 7.0)

    def lap(count, drift):
        around = 2 + drift * 0.5 * count
        return {"total": 10 + around, "trunk": 10.0, "around": around, "found": count}

    made = people(counts, [tuple(lap(count, drift) for count in counts) for drift in drifts])
    told = made.to_dict(0)
    assert told["person"]["p50"] == pytest.approx({"ms": 0.5 * np.median(drifts), "of_trunk": 0.05 * np.median(drifts)})
    assert told["person"]["least"] == pytest.approx({"ms": 0.5, "of_trunk": 0.05})
    assert told["by_count"]["4"]["around"]["least"] == 4.0
    assert [row[-1] for row in made.table().rows] == ["10.0%", "5.0%"]


def test_one_number_of_people_has_no_slope(people):
    made = people([3], [({"total": 3.0, "trunk": 1.0, "around": 2.0, "found": 3.0},)])
    assert made.to_dict(0)["person"]["p50"] == {"ms": None, "of_trunk": None}
    assert made.table().rows[0][-2:] == ("-", "-")


def test_the_first_person_is_not_one_more(people):
    """Without anybody the second graph does not run: what it takes for itself is no person's."""

    def lap(count):
        around = 1 + 0.2 * count + 3 * (count > 0)
        return {"total": 10 + around, "trunk": 10.0, "around": around, "found": count}

    alone, several = (people(counts, [tuple(map(lap, counts))]) for counts in ((0, 1), (0, 1, 6)))
    assert alone.to_dict(0)["person"]["p50"]["ms"] is None
    assert several.to_dict(0)["person"]["p50"]["ms"] == pytest.approx(0.2)


def test_planted_people_whom_an_entry_does_not_find_are_told(people):
    counts, found = (1, 5, 30), (1, 2, 17)
    laps = [({"total": 3.0, "trunk": 1.0, "around": 2.0, "found": float(one)}) for one in found]
    made = people(counts, [tuple(laps)])
    assert "2 of 5, 17 of 30 planted people reach the score threshold" in made.table().notes[-1]
    whole = people(counts, [tuple(lap | {"found": count} for lap, count in zip(laps, counts, strict=True))])
    assert not any("threshold" in note for note in whole.table().notes)


def test_people_below_the_threshold_do_not_count_as_found(spots):
    bundle = open_bundle(find_bundle("dac-nano"))
    entry = find_entries([bundle], Selection(runtime=("onnxruntime",), threads=1))[0][0]
    pipeline, image = entry.pipeline(), spots([(50, 60)], size=(240, 320))
    strict = pipeline.adjusted(pipeline.spec.decode.model_copy(update={"score_threshold": 1.0}))
    made = PeopleTimes([entry], (3,))
    made.run([strict], image, Budget(0.0, 1), lambda percent: None)
    assert made.to_dict(0)["by_count"]["3"]["found"]["p50"] == 0
    assert "0 of 3" in made.table().notes[-1]
    assert "after all work on them" in made.table().notes[-1]
    pipeline.close()


def test_a_batch_has_its_time_a_frame_and_its_gain_over_the_first_size(entry, spots):
    golden = entry.bundle.golden()
    frames = PictureFrames("golden", (("image.png", golden.image),))
    with entry.detector() as detector:
        batches = BatchTimes([entry], [detector], frames, [1, 4])
    batches.rounds = rounds_of([({"frame": 8.0}, {"frame": 4.0}), ({"frame": 16.0}, {"frame": 8.0})] * 3)
    assert batches.to_dict(0)["4"] == {"ms_per_frame": 6.0, "frames_per_second": 1e3 / 6, "speed_up": 2.0}


class Streaming:
    """Frames that a detector takes known seconds for each, on a clock of their own."""

    def __init__(self, monkeypatch, seconds):
        self._seconds, self._now = list(seconds), 50.0
        monkeypatch.setattr(throughput.time, "perf_counter", lambda: self._now)

    def stream(self, detector, seconds):
        for seconds in self._seconds:
            self._now += seconds
            yield None


def test_a_rate_is_taken_from_the_first_poses_to_the_last(monkeypatch):
    assert stream_rate(None, Streaming(monkeypatch, [9.0, 0.5, 0.5, 0.5, 0.5]), 1) == pytest.approx(2.0)
    assert stream_rate(None, Streaming(monkeypatch, [4.0]), 1) == pytest.approx(0.25)


def test_a_machine_that_throttles_shows_in_the_tenths(monkeypatch):
    fast, slow = [0.0625] * 80, [0.125] * 39
    sustained, told = Sustained(10.0, "cpu"), []
    sustained.run(None, Streaming(monkeypatch, [3.0, *fast, *slow]), told.append)
    assert told == list(range(1, 11))
    assert sustained.rates == pytest.approx([16] * 5 + [8] * 5)
    assert sustained.drop == pytest.approx(0.5)


def test_variants_that_cannot_run_here_are_told_with_the_reason(tmp_path, make_bundle):
    graphs = {"trunk": "portable/trunk.onnx", "adapt": "portable/adapt.onnx"}
    variants = (
        Variant(name="here", runtime=("onnxruntime",), **graphs),
        Variant(name="elsewhere", runtime=("toaster",), **graphs),
        Variant(name="npu-only", runtime=("openvino",), devices=("npu",), **graphs),
    )
    bundle = open_bundle(make_bundle(tmp_path / "bundle", variants=variants))
    entries, left_out = find_entries([bundle], Selection())
    assert [one.name for one in entries] == ["tiny here onnxruntime cpu"]
    assert [one.name for one in left_out] == ["tiny elsewhere", "tiny npu-only"]
    assert "not installed here" in left_out[0].reason
    assert "no npu was found" in left_out[1].reason
    assert find_entries([bundle], Selection(runtime=("onnxruntime",)))[1] == []


def test_a_bundle_without_what_is_wanted_is_left_out_beside_one_that_has_it(tmp_path, make_bundle, tiny_folder):
    graphs = {"trunk": "portable/trunk.onnx", "adapt": "portable/adapt.onnx"}
    int8 = Variant(name="int8", runtime=("onnxruntime",), precision="int8", **graphs)
    other = open_bundle(make_bundle(tmp_path / "other", variants=(int8,)))
    tiny = open_bundle(tiny_folder)
    entries, (missing,) = find_entries([tiny, other], Selection(precision=("int8",)))
    assert [one.name for one in entries] == ["tiny (other) int8 onnxruntime cpu"]
    assert isinstance(missing, LeftOut)
    assert "no variant in int8" in missing.reason
    with pytest.raises(ValueError, match="no variant in int8"):
        find_entries([tiny], Selection(precision=("int8",)))
    with pytest.raises((DeviceUnavailableError, MissingDependencyError)):
        find_entries([tiny], Selection(device=("npu",)))


def test_several_names_of_a_kind_add_up_in_their_order(tmp_path, make_bundle):
    graphs = {"trunk": "portable/trunk.onnx", "adapt": "portable/adapt.onnx", "runtime": ("onnxruntime",)}
    names = {"one": "fp32", "two": "int8", "three": "fp32"}
    variants = tuple(Variant(name=name, precision=precision, **graphs) for name, precision in names.items())
    bundle = open_bundle(make_bundle(tmp_path / "bundle", variants=variants))

    def found(**wanted) -> list[str]:
        entries, left_out = find_entries([bundle], Selection(**wanted))
        assert left_out == []
        return [entry.candidate.variant.name for entry in entries]

    assert found(variant=("three", "one")) == ["three", "one"]
    assert found(precision=("int8", "fp32")) == ["two", "one", "three"]
    assert found(variant=("one", "two"), precision=("fp32", "int8")) == ["one", "two"]
    assert found(device=("cpu", "auto"), runtime=("onnxruntime", "auto")) == ["one", "two", "three"]
    with pytest.raises(ValueError, match="no variant 'for'"):
        found(variant=("one", "for"))
    with pytest.raises(ValueError, match="no variant 'three' in int8"):
        found(variant=("two", "three"), precision=("int8",))


def test_a_name_of_which_nothing_runs_here_is_told_beside_what_runs(tmp_path, make_bundle, tiny_folder):
    graphs = {"trunk": "portable/trunk.onnx", "adapt": "portable/adapt.onnx", "runtime": ("onnxruntime",)}
    other = open_bundle(make_bundle(tmp_path / "other", variants=(Variant(name="other", **graphs),)))
    tiny = open_bundle(tiny_folder)
    entries, left_out = find_entries([tiny], Selection(device=("npu", "cpu"), runtime=("onnxruntime",)))
    assert [one.candidate.device for one in entries] == ["cpu"]
    assert [(one.name, "npu" in one.reason) for one in left_out] == [("tiny", True)]
    own = tiny.manifest.variants[0].name
    entries, left_out = find_entries([tiny, other], Selection(variant=(own, "other"), runtime=("onnxruntime",)))
    assert [one.candidate.variant.name for one in entries] == [own, "other"]
    assert [one.name for one in left_out] == [f"tiny ({tiny.path.name})", "tiny (other)"]
    assert all("has no variant" in one.reason for one in left_out)


def test_two_bundles_of_one_model_are_told_apart_by_as_little_as_does(tmp_path, make_bundle, tiny_folder):
    paths = [make_bundle(tmp_path / folder) for folder in ("a/one", "b/one", "c/two")]
    entries, _ = find_entries([open_bundle(path) for path in paths], Selection(runtime=("onnxruntime",)))
    titles = [f"tiny ({paths[0]})", f"tiny ({paths[1]})", "tiny (two)"]
    assert [entry.name for entry in entries] == [f"{title} onnx-fp32 onnxruntime cpu" for title in titles]


def test_a_fresh_process_tells_its_start_its_first_frame_and_its_memory(entry):
    found, told = {}, []
    measure_fresh([entry], entry.bundle.golden().picture(), found, told.append)
    assert told == [1, 2, 3]
    assert found[0].fault is None
    assert found[0].start_ms > found[0].first_ms > 0
    assert 20 < found[0].peak_mib < 2000


def test_a_process_that_fails_or_hangs_costs_its_own_figures_alone(entry, tmp_path, make_bundle, monkeypatch):
    broken = open_bundle(make_bundle(tmp_path / "broken"))
    lost = find_entries([broken], Selection(runtime=("onnxruntime",)))[0][0]
    (tmp_path / "broken" / "manifest.json").unlink()
    found = {}
    measure_fresh([lost, entry], entry.bundle.golden().picture(), found, lambda done: None)
    assert "manifest.json" in found[0].fault
    assert found[1].fault is None
    monkeypatch.setattr("posesdk.benchmark.startup.LIMIT", 0.01)
    found = {}
    measure_fresh([entry], entry.bundle.golden().picture(), found, lambda done: None)
    assert found[0].fault == "its process took more than 0.01 s and was ended"


def test_the_peak_of_a_process_counts_what_it_has_freed_and_not_what_its_parent_had():
    held = np.ones(2**27, np.uint8)  # 128 MiB that a child must not inherit
    code = (
        "import json, numpy as np\nfrom posesdk.benchmark.fresh import peak_memory\nbefore = peak_memory()\n"
        "held = np.ones(2**26, np.uint8)\ndel held\nprint(json.dumps([before, peak_memory()]))"
    )
    from posesdk.benchmark.startup import _environment

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_environment())
    before, after = json.loads(done.stdout)
    assert before < len(held)
    assert after - before > 0.9 * 2**26
