"""From a picture to the network's input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import plain_formulas
from posesdk.preprocess import make_letterbox
from posesdk.spec import Frame, InputSpec

INPUTS = {"nano": InputSpec(resize="long", side=320, multiple=32), "W32": InputSpec(side=512)}
PICTURES = {"photo 500x375": (375, 500), "480p": (480, 640), "720p": (720, 1280), "1080p": (1080, 1920)}
PLAIN: dict[Frame, Any] = {
    "consistent": plain_formulas.warp_with_areas,
    "published": plain_formulas.warp_in_float,
}


@pytest.mark.parametrize("how", ["plain", "now"])
@pytest.mark.parametrize("size", PICTURES.values(), ids=PICTURES)
@pytest.mark.parametrize(("net", "frame"), [("nano", "consistent"), ("W32", "consistent"), ("W32", "published")])
def test_preprocess(compare: Callable[..., Any], net: str, frame: Frame, size: tuple[int, int], how: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)

    def now() -> object:
        return make_letterbox(size, INPUTS[net], frame).warp(picture)

    def plain() -> object:
        letterbox = make_letterbox(size, INPUTS[net], frame)
        return PLAIN[frame](picture, letterbox.net_size, letterbox.matrix)

    name = next(name for name, known in PICTURES.items() if known == size)
    compare(f"preprocess {name}, {frame}", net, None, how, {"now": now, "plain": plain}[how])
