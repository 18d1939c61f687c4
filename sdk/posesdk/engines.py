"""How the TensorRT engines of a bundle are built: its recipe, its names, the user's cache."""

from dataclasses import replace

from posesdk.bundle import Bundle
from posesdk.bundle_cache import cache_folder
from posesdk.manifest import Variant
from posesdk_runtimes.engines.engine import EngineOptions
from posesdk_runtimes.engines.recipe import RECIPE_NAME, GraphRecipe, parse_recipes

__all__ = ["engine_options", "graph_names"]


def graph_names(variant: Variant) -> tuple[str, ...]:
    """The paths of a variant's graphs in the bundle."""
    return (variant.trunk,) if variant.adapt is None else (variant.trunk, variant.adapt)


def engine_options(bundle: Bundle, name: str, base: EngineOptions | None = None) -> EngineOptions:
    """What `open_runtime` and `ensure_engine` have to know of graph `name`; `base` gives the rest.

    Raises ArtifactError for a recipe that cannot be read.
    """
    return replace(
        base or EngineOptions(),
        cache=cache_folder() / "engines",
        recipe=_recipe(bundle, name),
        label=f"{bundle.manifest.id}/{name}",
    )


def _recipe(bundle: Bundle, name: str) -> GraphRecipe | None:
    folder, _, file = name.rpartition("/")
    path = f"{folder}/{RECIPE_NAME}"
    if path not in (entry.path for entry in bundle.manifest.files):
        return None
    return parse_recipes(bundle.read(path), f"{path} of {bundle.path}").get(file.rpartition(".")[0])
