"""DAC between and behind its graphs; each person is found from both centers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import plain_formulas
import plain_pose_nets
from posesdk.decode import decode_center_offset
from posesdk.dual_centers import DualCenters, pose_context


@pytest.mark.parametrize("how", ["plain", "now"])
def test_decode(compare: Callable[..., Any], dac_scene: Any, how: str) -> None:
    work = {"plain": plain_formulas.decode_center_offset, "now": decode_center_offset}[how]
    maps, spec, people = dac_scene.maps, dac_scene.spec, dac_scene.people
    found = compare("DAC decode", dac_scene.size, people, how, lambda: work(maps.heatmaps, maps.offsets, spec))
    assert len(found) == 2 * people


@pytest.mark.parametrize("how", ["plain", "now"])
def test_context(compare: Callable[..., Any], dac_scene: Any, how: str) -> None:
    work = {"plain": plain_pose_nets.pose_context, "now": pose_context}[how]
    keypoints, own, spec = dac_scene.initial.keypoints, dac_scene.maps.own, dac_scene.spec
    compare("DAC context", dac_scene.size, dac_scene.people, how, lambda: work(keypoints, own, spec))


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
