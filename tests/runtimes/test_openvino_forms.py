"""A picture size that comes often gets a graph of its own, and nobody sees it in the numbers."""

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

from posesdk_runtimes.base import share
from posesdk_runtimes.errors import RuntimeFault
from posesdk_runtimes.openvino import OpenVINORuntime, shared_core
from posesdk_runtimes.openvino_forms import OFTEN, Forms

MOST = 2


def image(rows: int = 32, columns: int = 32) -> np.ndarray:
    return np.random.default_rng(rows * columns).integers(0, 256, (1, rows, columns, 3), dtype=np.uint8)


def forms_of(graph: Path, *, most_fixed: int = MOST) -> tuple[Forms, list[Any]]:
    """Forms on one thread, and the shapes that were compiled so far."""
    core, made = shared_core(), []

    def compile_model(model: Any, streams: int) -> Any:
        made.append(tuple(map(str, model.inputs[0].get_partial_shape())))
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": streams}
        return core.compile_model(model, "CPU", settings)

    return Forms(core.read_model(graph), compile_model, most_fixed=most_fixed), made


def test_a_size_that_comes_often_is_compiled_once(graph: Path) -> None:
    forms, made = forms_of(graph)
    flexible = forms.flexible
    used = [forms.find([image()]) for _ in range(2 * OFTEN)]
    assert used[: OFTEN - 1] == [flexible] * (OFTEN - 1)
    assert len(set(used[OFTEN - 1 :])) == 1
    assert used[-1] is not flexible
    assert made[1:] == [("1", "32", "32", "3")]


def test_only_the_first_sizes_are_compiled(graph: Path) -> None:
    forms, made = forms_of(graph)
    sizes = [(32, 32 * (index + 1)) for index in range(MOST + 2)]
    used = {}
    for _ in range(OFTEN + 1):
        used = {size: forms.find([image(*size)]) for size in sizes}
    assert len(made) == 1 + MOST
    assert [used[size] is forms.flexible for size in sizes] == [False] * MOST + [True] * 2


def test_a_single_size_leaves_one_graph_in_memory_until_another_comes(graph: Path) -> None:
    forms, made = forms_of(graph)
    flexible = weakref.ref(forms.flexible)
    for _ in range(OFTEN + 1):
        forms.find([image()])
    gc.collect()
    assert flexible() is None
    other = [forms.find([image(64, 32)]) for _ in range(2 * OFTEN)]
    assert made[2:] == [made[0], ("1", "64", "32", "3")]  # once, and kept beside the second size's own
    assert forms.flexible is other[0]


def test_several_sizes_keep_the_form_for_all(graph: Path) -> None:
    forms, made = forms_of(graph)
    flexible = forms.find([image(64, 32)])
    for _ in range(OFTEN + 1):
        forms.find([image()])
    assert forms.find([image(64, 64)]) is flexible
    assert len(made) == 2


def test_devices_that_compile_slowly_keep_the_one_form(graph: Path) -> None:
    forms, made = forms_of(graph, most_fixed=0)
    assert {forms.find([image()]) for _ in range(OFTEN + 1)} == {forms.flexible}
    assert len(made) == 1


def test_the_numbers_stay_the_same_to_the_bit(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=1)
    pictures = [image(), image(64, 32)]
    first = [runtime.run({"image": one})["maps"] for one in pictures]
    for _ in range(OFTEN + 1):
        for one, wanted in zip(pictures, first, strict=True):
            np.testing.assert_array_equal(runtime.run({"image": one})["maps"], wanted)
    assert runtime._forms is not None
    assert runtime._forms.find([pictures[0]]) is not runtime._forms.flexible


def test_outputs_of_a_form_outlive_the_next_call(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=1)
    for _ in range(OFTEN):
        kept = runtime.run({"image": image()})["maps"]
    wanted = kept.copy()
    runtime.run({"image": 255 - image()})
    np.testing.assert_array_equal(kept, wanted)


def test_a_picture_that_must_not_be_written_to_is_taken(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=1)
    wanted = runtime.run({"image": image()})["maps"]
    frozen = image()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(runtime.run({"image": frozen})["maps"], wanted)


def test_a_size_that_the_graph_cannot_compute_is_refused_beside_a_fixed_form(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=1)
    for _ in range(OFTEN + 1):
        runtime.run({"image": image()})
    with pytest.raises(RuntimeFault):
        runtime.run({"image": image(2, 32)})
    runtime.run({"image": image()})


def test_many_threads_get_what_one_gets(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=1)
    wanted = runtime.run({"image": image()})["maps"]
    found: list[np.ndarray] = []

    def work() -> None:
        found.extend(runtime.run({"image": image()})["maps"] for _ in range(OFTEN))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 * OFTEN
    for values in found:
        np.testing.assert_array_equal(values, wanted)


def test_runs_that_share_the_processors_get_a_form_in_which_they_go_side_by_side(graph: Path) -> None:
    asked: list[int] = []

    def compile_model(model: Any, streams: int) -> Any:
        asked.append(streams)
        return shared_core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": 2, "NUM_STREAMS": streams})

    forms = Forms(shared_core().read_model(graph), compile_model, most_fixed=MOST)
    alone = [forms.find([image()]) for _ in range(OFTEN)][-1]
    beside = [forms.find([image()], 2) for _ in range(OFTEN)]
    assert asked == [1, 1, 2]
    assert set(beside[:-1]) == {alone}  # which serves until its own is there
    assert forms.find([image()], 2) is beside[-1] is not alone
    assert forms.find([image()]) is alone


def test_a_shared_graph_gives_the_same_numbers_to_the_bit(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=2)
    shared = share(runtime, 2)
    assert (shared.inputs, shared.outputs) == (runtime.inputs, runtime.outputs)
    wanted = runtime.run({"image": image()})
    for _ in range(OFTEN + 1):
        for name, values in shared.run({"image": image()}).items():
            np.testing.assert_array_equal(values, wanted[name])


@pytest.mark.parametrize(("runs", "streams"), [(1, 1), (2, 2), (4, 2)])
def test_a_shared_graph_has_a_stream_for_every_run_that_has_a_thread(graph: Path, runs: int, streams: int) -> None:
    """With one stream for two runs, one waits until the other is done."""
    runtime = OpenVINORuntime(graph, threads=2)
    for _ in range(OFTEN):
        share(runtime, runs).run({"image": image()})
    assert runtime._forms is not None
    (form,) = runtime._forms._fixed.values()
    assert form.compiled.get_property("NUM_STREAMS") == streams
    assert form.compiled.get_property("INFERENCE_NUM_THREADS") == 2


def test_one_thread_is_not_divided(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=1)
    assert share(runtime, 2) is runtime


def test_closing_a_shared_graph_closes_the_whole(graph: Path) -> None:
    runtime = OpenVINORuntime(graph, threads=2)
    shared = share(runtime, 2)
    shared.close()
    for one in (runtime, shared):
        with pytest.raises(RuntimeFault, match="closed"):
            one.run({"image": image()})
