"""What the report of a conversion warns of."""

from types import SimpleNamespace

import pytest

from posesdk.manifest import Variant
from posesdk_converters.verification.judge import Judged
from posesdk_converters.verification.report import warnings_of


def record(kept, *, ranked, note=""):
    variant = Variant(name="x-int8", precision="int8", trunk="x", float_layers=tuple(f"layer{i}" for i in range(kept)))
    return SimpleNamespace(judged=[Judged(variant, "none", note=note)], ranking=range(ranked), photos="photos")


@pytest.mark.parametrize(("kept", "ranked", "warned"), [(5, 20, True), (4, 20, False), (7, 0, False)])
def test_int8_that_is_mostly_float_is_warned_of(kept, ranked, warned):
    said = [f"x-int8 passes only with {kept} of {ranked} layers in float"] if warned else []
    assert [line.partition(",")[0] for line in warnings_of(record(kept, ranked=ranked))] == said


def test_variant_that_was_not_run_is_warned_of():
    assert list(warnings_of(record(0, ranked=0, note="no such library"))) == [
        "x-int8 was NOT run here: no such library"
    ]
