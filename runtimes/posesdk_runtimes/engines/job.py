"""What the process that builds an engine is asked for, and how it says why it could not."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from posesdk_runtimes.engines.recipe import GraphRecipe, recipe_from_dict
from posesdk_runtimes.tensorrt.runtime import lacks_memory

__all__ = ["BuildFault", "Job", "Messages"]

_QUOTED = 5
"""Lines of the vendor's library that an error quotes."""


@dataclass(frozen=True, slots=True)
class Job:
    """One engine: of the file `onnx`, written to `output`; `recipe` None leaves the shapes to `default_recipe`."""

    onnx: str
    output: str
    precision: str
    recipe: GraphRecipe | None
    workspace_mib: int
    module: str = "tensorrt"

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Job":
        """The job that `to_dict` gave."""
        recipe = content["recipe"]
        return cls(**{**content, "recipe": None if recipe is None else recipe_from_dict(recipe)})

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "recipe": None if self.recipe is None else self.recipe.to_dict()}


class BuildFault(Exception):
    """Why an engine cannot be built; `reason` as in EngineBuildError, or "missing" for the library itself."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(slots=True)
class Messages:
    """What the vendor's library logged as errors."""

    errors: list[str] = field(default_factory=list)

    def logger(self, trt: Any) -> Any:
        """A logger that collects; it has to live as long as the builder."""
        serious = (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR)
        errors = self.errors

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, msg: str) -> None:
                if severity in serious:
                    errors.append(" ".join(msg.split()))

        return Logger()

    def fault(self, reason: str, what: str) -> BuildFault:
        """What failed, with the library's own words; `reason` is "memory" where they say so."""
        text = "; ".join(self.errors[-_QUOTED:])
        if lacks_memory(text):
            reason = "memory"
        return BuildFault(reason, f"{what}: {text}" if text else what)
