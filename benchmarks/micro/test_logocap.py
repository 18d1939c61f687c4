"""LOGO-CAP between and behind its graphs."""

from collections.abc import Callable
from typing import Any

import pytest

import plain_formulas
from posesdk.adapt import adapt_poses
from posesdk.context import local_context
from posesdk.decode import decode_center_offset, suppress_poses
from posesdk.poses import Poses

HOW = pytest.mark.parametrize("how", ["plain", "now"])


@HOW
def test_decode(compare: Callable[..., Any], scene: Any, how: str) -> None:
    work = {"plain": plain_formulas.decode_center_offset, "now": decode_center_offset}[how]
    maps, spec = scene.maps, scene.spec
    found = compare("decode", scene.size, scene.people, how, lambda: work(maps.heatmaps, maps.offsets, spec))
    assert len(found) == scene.people


@HOW
def test_context(compare: Callable[..., Any], scene: Any, how: str) -> None:
    work = {"plain": plain_formulas.local_context, "now": local_context}[how]
    embedding, spec = scene.maps.own["embedding"], scene.spec
    compare("context", scene.size, scene.people, how, lambda: work(scene.initial.keypoints, embedding, spec))


def test_refine(compare: Callable[..., Any], scene: Any) -> None:
    heatmaps, attraction, spec = scene.maps.heatmaps, scene.attraction, scene.spec
    compare("refine", scene.size, scene.people, "now", lambda: adapt_poses(scene.initial, heatmaps, attraction, spec))


@HOW
def test_selection(compare: Callable[..., Any], scene: Any, how: str) -> None:
    work = {"plain": plain_formulas.suppress_poses, "now": suppress_poses}[how]
    initial, decode = scene.initial, scene.spec.decode
    compare("selection", scene.size, scene.people, how, lambda: work(initial.keypoints, initial.scores, decode))


def test_poses(compare: Callable[..., Any], scene: Any) -> None:
    values, _ = adapt_poses(scene.initial, scene.maps.heatmaps, scene.attraction, scene.spec)
    found = {"keypoints": values, "keypoint_scores": values[..., 0], "scores": scene.initial.scores}

    def make() -> Poses:
        return Poses(**found, image_size=(480, 640), skeleton=scene.spec.skeleton, timing={"trunk": 1.0}).above(0.04)

    compare("Poses", scene.size, scene.people, "now", make)
