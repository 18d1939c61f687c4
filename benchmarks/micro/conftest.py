"""Scenes to work on, and a Markdown table of what each stage takes beside its plain formula.

    python -m pytest benchmarks/micro [-k context] [--benchmark-max-time SECONDS]

Everything around the graphs, at the size of nano and of W32, for 1 to 30 people planted into random maps, on one thread
of OpenCV and BLAS. "plain" is what the tests expect (`tests/support/plain_formulas.py`), where a shortcut has one; both
work on the same arrays, one after the other, and the least times are compared.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from posesdk.benchmark.machine import describe_machine
from posesdk.benchmark.planted import PlantedTrunk
from posesdk.benchmark.tables import NOTHING, Table, show_table
from posesdk.bundle import open_bundle
from posesdk.decode import ImageMaps, InitialPoses, decode_center_offset
from posesdk.methods import trunk_outputs
from posesdk.shipped import find_bundle
from posesdk.spec import HRNetSpec, InputSpec, ModelSpec
from posesdk.terminal import show_line
from posesdk_runtimes.base import Tensor, TensorSpec

PEOPLE = (1, 5, 10, 30)
SIZES = {"nano": (256, 320), "W32": (512, 512)}
"""Net px, height and width."""
NOISE = 0.1
"""Highest value of the random heatmaps between people, as in a trained model's."""
NOW, PLAIN = "now", "plain"


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    cv2.setNumThreads(1)
    config.option.benchmark_quiet = True  # one table of all instead of one a group


class RandomTrunk:
    """Maps of every output of a model's trunk, for an image of `net_size`; what an image shows does not matter."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, spec: ModelSpec, net_size: tuple[int, int]) -> None:
        rng = np.random.default_rng(0)
        self._maps: dict[str, Tensor] = {}
        for name, shape in trunk_outputs(spec).items():
            level = int(name[-1]) if name.startswith("level") else 0
            sides = [side // (spec.stride << level) for side in net_size]
            depth = shape[1] or shape[-1]
            full = (1, depth, *sides) if shape[1] else (1, *sides, depth)
            values = rng.uniform(0, NOISE, full) if name == "heatmaps" else rng.normal(size=full)
            self._maps[name] = values.astype(np.float32)

    def run(self, feeds: Any) -> dict[str, Tensor]:
        return self._maps

    def close(self) -> None:
        self._maps = {}


@dataclass(frozen=True, eq=False)
class Scene:
    """What the decoder is given of an image with people, what it makes of it, and what the second graph may say."""

    spec: ModelSpec
    size: str
    people: int
    maps: ImageMaps
    initial: InitialPoses
    attraction: NDArray[np.float32]


def make_scene(spec: ModelSpec, size: str, people: int) -> Scene:
    decode = spec.decode.model_copy(update={"flip_test": False, "max_people": max(30, people)})
    spec = spec.model_copy(update={"decode": decode})
    outputs = PlantedTrunk(RandomTrunk(spec, SIZES[size]), spec, people).run({})
    own = {name: values[0] for name, values in outputs.items()}
    maps = ImageMaps(own["heatmaps"], own["offsets"], own)
    initial = decode_center_offset(maps.heatmaps, maps.offsets, spec)
    mesh = spec.adaptation.local_size
    kernel = np.hanning(mesh + 2)[1:-1]
    noise = np.random.default_rng(1).uniform(0.5, 1, (len(initial), spec.keypoint_count, mesh, mesh))
    return Scene(spec, size, people, maps, initial, (noise * np.outer(kernel, kernel)).astype(np.float32))


def logocap_spec(size: str) -> ModelSpec:
    """That of the default model, and that of the published W32 in the consistent frame."""
    return open_bundle(find_bundle(None)).spec if size == "nano" else ModelSpec(name="W32", input=InputSpec(side=512))


def dac_spec(size: str) -> ModelSpec:
    if size == "nano":
        return open_bundle(find_bundle("dac-nano")).spec
    return ModelSpec(name="W32", method="dac", centers="dual", backbone=HRNetSpec(), input=InputSpec(side=512))


def _scenes(make: Callable[[str], ModelSpec]) -> Any:
    @pytest.fixture(scope="module", params=[(s, n) for s in SIZES for n in PEOPLE], ids=lambda p: f"{p[0]}-{p[1]}")
    def scene(request: pytest.FixtureRequest) -> Scene:
        size, people = request.param
        return make_scene(make(size), size, people)

    return scene


scene = _scenes(logocap_spec)
dac_scene = _scenes(dac_spec)


@pytest.fixture
def compare(benchmark: Any) -> Callable[..., Any]:
    """Times a call and notes under which stage, size and number of people its time stands in the table."""

    def run(stage: str, size: str, people: int | None, how: str, work: Callable[[], object]) -> object:
        benchmark.group = f"{stage} {size} {people or ''}"
        benchmark.extra_info.update(stage=stage, size=size, people=people, how=how)
        return benchmark(work)

    return run


@dataclass(frozen=True)
class _Row:
    """Least milliseconds."""

    now: float | None = None
    plain: float | None = None

    def cells(self) -> tuple[str, str, str]:
        ratio = f"{self.plain / self.now:.2f}x" if self.plain and self.now else NOTHING
        return (*(NOTHING if value is None else f"{value:.4f}" for value in (self.plain, self.now)), ratio)


def pytest_terminal_summary(config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows: dict[tuple[str, str, int | None], _Row] = {}
    for done in session.benchmarks if session else ():
        info = done.extra_info
        if not done.has_error and done.stats.data:
            key = (info["stage"], info["size"], info["people"])
            rows[key] = replace(rows.get(key, _Row()), **{info["how"]: done.stats.min * 1e3})
    if not rows:
        return
    cells = [(*key[:2], NOTHING if key[2] is None else str(key[2]), *row.cells()) for key, row in rows.items()]
    machine = describe_machine([])
    show_line(
        f"\n{machine['processor']}, {machine['logical_cores']} logical cores, one thread; Python {machine['python']}, "
        f"numpy {machine['numpy']}, OpenCV {machine['opencv']}; people planted into random maps, random pictures\n"
    )
    headings = ("stage", "size", "people", "plain ms", "now ms", "speed-up")
    show_table(Table("Around the graphs, least times", headings, tuple(cells), texts=2), err=False)
