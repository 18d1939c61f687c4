from pathlib import Path

import pytest

from posesdk_converters import targets
from posesdk_converters.target import Conversion, find_target, portable_variant, target_names
from posesdk_training.checkpoint import load_model


def test_every_module_in_targets_is_a_target():
    files = {path.stem for path in Path(targets.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(target_names()) == files
    for name in target_names():
        target = find_target(name)
        assert target.SUMMARY
        assert len(set(target.PRECISIONS)) == len(target.PRECISIONS) > 0
        assert callable(target.convert)


def test_unknown_target_names_the_known_ones():
    with pytest.raises(ValueError, match=f"no target 'toaster'; known: {', '.join(target_names())}"):
        find_target("toaster")


def test_onnx_target_adds_nothing_to_the_portable_graphs(tmp_path, tiny_checkpoint):
    conversion = Conversion(tmp_path, portable_variant(adapt=True, input_size=None), load_model(tiny_checkpoint))
    assert find_target("onnx").convert(conversion, "fp32") == ()
    assert list(tmp_path.iterdir()) == []


def test_portable_variant_without_adaptation_names_no_adapt_graph():
    variant = portable_variant(adapt=False, input_size=(64, 96))
    assert variant.adapt is None
    assert variant.input_size == (64, 96)
