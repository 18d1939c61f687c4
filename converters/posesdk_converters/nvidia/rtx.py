"""NVIDIA's own parser and builder on a machine without a GPU: TensorRT for RTX, from PyPI.

It shows that a graph parses and that an engine can be built of it. Its engines run on RTX cards only: those of a device
are built there. Nothing is computed, so numbers come from ONNX Runtime.
"""

import importlib.metadata
import importlib.util
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from posesdk.manifest import Variant
from posesdk_runtimes.engines.recipe import GraphRecipe, ShapeRange, default_recipe, read_recipe
from posesdk_runtimes.errors import EngineBuildError, GateError, MissingDependencyError
from posesdk_runtimes.registry import open_runtime
from posesdk_runtimes.tensorrt.runtime import lacks_memory

__all__ = ["INSTALL", "RtxCheck", "check_with_rtx", "require_parsed", "rtx_version", "validate"]

INSTALL = "pip install 'posesdk[convert-nvidia]'"
MIB = 1024**2
_DISTRIBUTION, _MODULE = "tensorrt-rtx", "tensorrt_rtx"
_KEPT = ("INTERNAL_ERROR", "ERROR", "WARNING")
_WRONG_TYPE = "UINT8"
"""In a parser's warning: a quantization to uint8 that TensorRT would take for int8, with wrong ranges."""


@dataclass(frozen=True)
class RtxCheck:
    """What TensorRT-RTX says about one file; `seconds` and `engine_mib` are of the build, None where there was none."""

    file: str
    precision: str
    version: str
    parsed: bool
    errors: tuple[str, ...]
    seconds: float | None = None
    engine_mib: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the file was parsed without an error, and built where that was asked for."""
        return self.parsed and not self.errors

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a report."""
        return {**asdict(self), "errors": list(self.errors), "passed": self.passed}


def rtx_version() -> str | None:
    """The version of TensorRT-RTX that is installed here, None if there is none; loads nothing."""
    if importlib.util.find_spec(_MODULE) is None:
        return None
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def check_with_rtx(path: Path, recipe: GraphRecipe, precision: str, *, build: bool = True) -> RtxCheck:
    """Parses an ONNX file and, with `build`, makes an engine for the recipe's profiles, which is thrown away.

    What is wrong with the file stands in the result. Raises MissingDependencyError where TensorRT-RTX is not installed,
    EngineBuildError where this machine has too little memory, which says nothing about the file.
    """
    try:
        import tensorrt_rtx as trt
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"checking {path}: TensorRT-RTX cannot be imported ({error}); `{INSTALL}`"
        ) from error
    log = _log()
    del log.messages[:]
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    parsed = bool(parser.parse(path.read_bytes()))
    errors = [_line(parser.get_error(index)) for index in range(parser.num_errors)]
    errors += [text for severity, text in log.messages if severity == "WARNING" and _WRONG_TYPE in text]
    check = RtxCheck(path.name, precision, str(trt.__version__), parsed, tuple(errors))
    return _built(trt, builder, network, recipe, check) if build and check.passed else check


def require_parsed(path: Path, recipe: GraphRecipe, precision: str) -> None:
    """Raises GateError where TensorRT-RTX is installed and cannot parse the file."""
    if rtx_version() is None:
        return
    check = check_with_rtx(path, recipe, precision, build=False)
    if not check.passed:
        raise GateError(
            f"{path.parent.name}/{path.name}: TensorRT-RTX {check.version} cannot read it: "
            f"{'; '.join(check.errors) or 'no reason is given'}; use the pinned versions of torch and onnx"
        )


def validate(folder: Path, variants: Sequence[Variant]) -> list[RtxCheck]:
    """Parses and builds every ONNX file of these variants, once each; `folder` is the bundle's root.

    Empty where TensorRT-RTX is not installed. A variant without a recipe, as the portable one, takes that of another.
    """
    if rtx_version() is None:
        return []
    files = {path: variant.precision for variant in variants for path in _graphs(variant)}
    recipes = {Path(path).stem: recipe for path in files if (recipe := read_recipe(folder / path))}
    checks = []
    for path, precision in files.items():
        recipe = read_recipe(folder / path) or recipes.get(Path(path).stem) or _plain_recipe(folder / path)
        checks.append(replace(check_with_rtx(folder / path, recipe, precision), file=path))
    return checks


def _graphs(variant: Variant) -> list[str]:
    return [path for path in (variant.trunk, variant.adapt) if path is not None and path.endswith(".onnx")]


def _plain_recipe(path: Path) -> GraphRecipe:
    runtime = open_runtime(path, runtime="onnxruntime")
    try:
        return default_recipe(runtime.inputs)
    finally:
        runtime.close()


def _built(trt: Any, builder: Any, network: Any, recipe: GraphRecipe, check: RtxCheck) -> RtxCheck:
    log = _log()
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, recipe.workspace_mib * MIB)
    _add_profile(builder, config, recipe.profiles)
    start = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    seconds = round(time.perf_counter() - start, 2)
    if engine is None:
        reasons = tuple(text for severity, text in log.messages if severity != "WARNING")
        if lacks_memory(" ".join(reasons)):
            raise EngineBuildError(
                f"checking {check.file} with TensorRT-RTX {check.version}: {'; '.join(reasons)}; close other programs, "
                "add swap, convert with a smaller --input-size, or convert without tensorrt-rtx",
                "memory",
            )
        return replace(check, errors=reasons or ("no engine was built",), seconds=seconds)
    return replace(check, seconds=seconds, engine_mib=round(engine.nbytes / MIB, 2))


def _add_profile(builder: Any, config: Any, profiles: Mapping[str, ShapeRange]) -> None:
    if not profiles:
        return
    profile = builder.create_optimization_profile()
    for name, shapes in profiles.items():
        profile.set_shape(name, shapes.min, shapes.opt, shapes.max)
    config.add_optimization_profile(profile)


def _line(error: Any) -> str:
    return " ".join(str(error.desc()).split())


@lru_cache(maxsize=1)
def _log() -> Any:
    """The one logger of the process: TensorRT keeps the first that it is given. Collects, and writes nothing."""
    import tensorrt_rtx as trt

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            if severity.name in _KEPT:
                self.messages.append((severity.name, msg))

    return Log()
