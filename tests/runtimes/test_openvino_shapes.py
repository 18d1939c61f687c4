"""Rows that are persons: a few more are computed where that is cheaper than another shape, and nobody sees them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino", reason="OpenVINO is not installed")

from posesdk_runtimes.openvino import OpenVINORuntime, import_openvino
from posesdk_runtimes.openvino_forms import OFTEN, Form
from posesdk_runtimes.openvino_shapes import MOST_FOR_PERSONS, is_of_persons, most_fixed, row_count

openvino = import_openvino()
ops = openvino.opset13


def model(name: str = "context", row: tuple[int, ...] = (3, 2), *, across: bool = False, weights: int = 1) -> object:
    """`name` [N, *row] -> doubled [N, *row], total [N]; with `across`, less the mean of all totals."""
    rows = ops.parameter([-1, *row], np.float32, name=name)
    rows.output(0).set_names({name})
    doubled = ops.multiply(rows, np.full((1,) * len(row) + (weights,), 2, np.float32))
    axes = np.arange(1, 1 + len(row))
    total = ops.reduce_sum(rows, axes, keep_dims=False)
    if across:
        total = ops.subtract(total, ops.reduce_mean(total, np.array([0]), keep_dims=True))
    doubled.output(0).set_names({"doubled"})
    total.output(0).set_names({"total"})
    return openvino.Model([doubled, total], [rows], "tiny")


def runtime(folder: Path, *args: object, **settings: object) -> OpenVINORuntime:
    openvino.save_model(model(*args, **settings), folder / "tiny.xml", compress_to_fp16=False)  # type: ignore[arg-type]
    return OpenVINORuntime(folder / "tiny.xml", threads=1)


def persons(count: int) -> np.ndarray:
    return np.arange(6 * count, dtype=np.float32).reshape(count, 3, 2)


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of rows that graphs were fed, in order."""
    found: list[int] = []
    run = Form.run

    def recorded(form: Form, tensors: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        found.append(len(tensors[0]))
        return run(form, tensors)

    monkeypatch.setattr(Form, "run", recorded)
    return found


def test_rows_are_as_many_as_persons_or_a_few_more() -> None:
    rows = [row_count(count) for count in range(14)]
    assert rows == [0, 1, 2, 4, 4, 8, 8, 8, 8, 12, 12, 12, 12, 16]


def test_every_number_of_persons_gets_its_own_rows_only(tmp_path: Path, fed: list[int]) -> None:
    used = runtime(tmp_path)
    for count in (9, 1, 2, 3, 7, 0, 5):
        outputs = used.run({"context": persons(count)})
        np.testing.assert_array_equal(outputs["doubled"], 2 * persons(count))
        np.testing.assert_array_equal(outputs["total"], persons(count).sum(axis=(1, 2)))
    assert fed == [12, 1, 2, 4, 8, 0, 8]


def test_counts_that_come_often_get_forms_of_their_own_with_the_same_numbers(tmp_path: Path) -> None:
    used = runtime(tmp_path)
    for _ in range(OFTEN):
        for count in (1, 5, 6, 10, 14):
            outputs = used.run({"context": persons(count)})
            np.testing.assert_array_equal(outputs["total"], persons(count).sum(axis=(1, 2)))
    assert used._forms is not None
    fixed = {rows: used._forms.find([persons(rows)]) is not used._forms.flexible for rows in (1, 8, 12, 16)}
    assert fixed == {1: True, 8: True, 12: True, 16: False}
    assert sum(fixed.values()) == MOST_FOR_PERSONS


def test_a_graph_that_looks_at_other_rows_gets_none_that_it_was_not_given(tmp_path: Path, fed: list[int]) -> None:
    used = runtime(tmp_path, "rows", across=True)
    outputs = used.run({"rows": persons(3)})
    np.testing.assert_array_equal(outputs["total"], [-36, 0, 36])  # of 15, 51 and 87
    assert fed == [3]


def test_large_rows_are_not_computed_for_nobody(tmp_path: Path, fed: list[int]) -> None:
    used = runtime(tmp_path, row=(1088, 11, 11))  # that of HRNet-W32
    assert used.run({"context": np.ones((3, 1088, 11, 11), np.float32)})["total"].shape == (3,)
    assert fed == [3]


@pytest.mark.parametrize("shape", [[2, 3, 2], [-1, 3, -1]])
def test_rows_must_be_free_and_what_is_in_them_fixed(shape: list[int]) -> None:
    changed = model()
    changed.reshape({"context": shape})  # type: ignore[attr-defined]
    assert is_of_persons(model())
    assert not is_of_persons(changed)


def test_many_weights_are_held_once() -> None:
    assert most_fixed(model(row=(3, 1), weights=1000)) == MOST_FOR_PERSONS
    assert most_fixed(model(row=(3, 1), weights=1_000_000)) == 0
