import pytest

from posesdk_converters.verification.fallback import fewest_float_layers
from posesdk_converters.verification.sensitivity import LayerError

RANKING = [
    LayerError("trunk" if index % 2 else "adapt", f"layer{index}", f"w{index}", 1 / (index + 1)) for index in range(20)
]


def search(needed):
    """What is tried, and the answer, where `needed` layers let an attempt pass."""
    tried = []

    def attempt(layers):
        tried.append(sum(len(names) for names in layers.values()))
        return tried[-1]

    return tried, fewest_float_layers(RANKING, attempt, lambda count: count >= needed)


@pytest.mark.parametrize("needed", range(1, 21))
def test_fewest_layers_are_found_and_left_behind(needed):
    tried, (count, attempt) = search(needed)
    assert count == attempt == needed
    assert tried[-1] == needed
    assert len(tried) <= 11


def test_nothing_is_found_where_all_layers_are_not_enough():
    tried, found = search(21)
    assert found is None
    assert tried == [1, 2, 4, 8, 16, 20]


def test_most_sensitive_layers_come_first():
    seen = []
    fewest_float_layers(RANKING, seen.append, lambda _: len(seen) == 2)
    assert seen[1] == {"trunk": ("layer1",), "adapt": ("layer0",)}
