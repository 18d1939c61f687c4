"""DAC between and behind its graphs; each person is found from both centers."""

from collections.abc import Callable
from typing import Any

import numpy as np

from posesdk.decode import decode_center_offset
from posesdk.dual_centers import DualCenters


def test_decode(compare: Callable[..., Any], dac_scene: Any) -> None:
    maps, spec = dac_scene.maps, dac_scene.spec
    work = lambda: decode_center_offset(maps.heatmaps, maps.offsets, spec)  # noqa: E731
    assert len(compare("DAC decode", dac_scene.size, dac_scene.people, "now", work)) == 2 * dac_scene.people


def test_context(compare: Callable[..., Any], dac_scene: Any) -> None:
    initial, maps, spec = dac_scene.initial, dac_scene.maps, dac_scene.spec
    compare("DAC context", dac_scene.size, dac_scene.people, "now", lambda: DualCenters().context(initial, maps, spec))


def test_finish(compare: Callable[..., Any], dac_scene: Any) -> None:
    initial, maps, spec = dac_scene.initial, dac_scene.maps, dac_scene.spec
    rng, count = np.random.default_rng(2), len(dac_scene.initial)
    looks = rng.normal(size=(dac_scene.people, spec.pose_nets.embedding))
    looks = (looks / np.linalg.norm(looks, axis=1, keepdims=True)).astype(np.float32)
    outputs = {
        "similarity": np.resize(looks, (count, looks.shape[1])),
        "confidence": rng.uniform(0.1, 0.9, count).astype(np.float32),
        "residuals": rng.normal(size=initial.keypoints.shape).astype(np.float32),
    }
    compare(
        "DAC finish",
        dac_scene.size,
        dac_scene.people,
        "now",
        lambda: DualCenters().finish(initial, maps, outputs, spec),
    )
