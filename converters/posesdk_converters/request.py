"""What a user wants of a conversion, and whether it can be had."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from posesdk.manifest import Name, Precision
from posesdk.spec import ModelSpec
from posesdk.verify import Gate
from posesdk_converters.target import find_target, fused_precisions, target_names

__all__ = ["Request", "check_request", "planned"]


@dataclass(frozen=True)
class Request:
    """What to make of a checkpoint.

    A target is a name, or `name:precision` for a precision of its own. None stands for: of `precisions`, the first of
    each target; of `input_size` (height, width), what the target takes;
    of `name`, the model's own; of `golden`, a rendered picture; of `report`, a folder beside the bundle. `evaluate` is
    a COCO annotation file with its `images`; `accuracy` a file of `posesdk-train evaluate --accuracy`.
    """

    targets: tuple[str, ...]
    precisions: tuple[Precision, ...] | None = None
    input_size: tuple[int, int] | None = None
    name: str | None = None
    version: str = "1"
    golden: Path | None = None
    accuracy: Path | None = None
    calibration: Path | None = None
    few_images: bool = False
    evaluate: Path | None = None
    images: Path | None = None
    gate: Gate = field(default_factory=Gate)
    fused: bool = False
    report: Path | None = None

    @property
    def quantizes(self) -> bool:
        """Whether calibration images are needed."""
        return any(precision == "int8" for _, precision in planned(self))


def planned(request: Request) -> tuple[tuple[str, Precision], ...]:
    """Target and precision of every step: of the precisions that are asked for, those that each target makes."""
    steps: list[tuple[str, Precision]] = []
    for target in request.targets:
        name, _, own = target.partition(":")
        made = find_target(name).PRECISIONS
        wanted = (own,) if own else made[:1] if request.precisions is None else request.precisions
        steps += [(name, precision) for precision in wanted if precision in made]
    return tuple(dict.fromkeys(steps))


def check_request(spec: ModelSpec, request: Request) -> None:
    """Raises ValueError for what cannot be had: a name, a target, a precision, a size, int8 without images, and a
    fused graph of a model that has none."""
    for title, value in (("name", request.name or spec.name), ("version", request.version)):
        if not _is_name(value):
            raise ValueError(
                f"{title} {value!r}: expected up to 100 letters, digits, dots, dashes and underscores, the first one a "
                f"letter or a digit; give another with --{title}"
            )
    if not request.targets:
        raise ValueError(f"no target; known: {', '.join(target_names())}")
    _check_precisions(request)
    multiple = spec.input.multiple
    if request.input_size is not None and any(side <= 0 or side % multiple for side in request.input_size):
        height, width = request.input_size
        raise ValueError(f"input size {height}x{width}: both sides must be multiples of {multiple}")
    if request.quantizes and request.calibration is None:
        raise ValueError(
            "int8 needs calibration images, from which the ranges of the model's values are taken; name a folder of "
            "pictures like those of your cameras, or a COCO file, with --calibration"
        )
    if request.fused and not any(precision in fused_precisions(name) for name, precision in planned(request)):
        able = [f"{name} ({', '.join(fused_precisions(name))})" for name in target_names() if fused_precisions(name)]
        raise ValueError(
            f"--fused: none of {', '.join(':'.join(step) for step in planned(request))} can be fused, only "
            f"{' and '.join(able)}; leave --fused out, or name one of these"
        )
    if request.fused:
        from posesdk_converters.nvidia.fused_graph import check_fusible  # loads torch, which takes seconds

        check_fusible(spec)
    if request.images is not None and request.evaluate is None:
        raise ValueError("--images goes with --evaluate only: it is where the images of those annotations lie")


def _check_precisions(request: Request) -> None:
    steps = planned(request)
    for target in request.targets:
        name, _, own = target.partition(":")
        made = find_target(name).PRECISIONS
        if (own and own not in made) or all(done != name for done, _ in steps):
            wanted = own or ", ".join(request.precisions or ())
            raise ValueError(f"target {name} is made in {', '.join(made)} only, not in {wanted}")
    for precision in request.precisions or ():
        if all(made != precision for _, made in steps):
            raise ValueError(f"none of the targets {', '.join(request.targets)} is made in {precision}")


def _is_name(text: str) -> bool:
    try:
        TypeAdapter(Name).validate_python(text)
    except ValidationError:
        return False
    return True
