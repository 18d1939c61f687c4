"""Training configurations as files: shipped recipes by name, and files that say only what they change of another."""

from importlib import resources
from pathlib import Path
from typing import Any

from posesdk_runtimes.errors import DataError

__all__ = ["find_recipe", "read_recipe", "recipe_names", "recipe_path"]

BASE = "base"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted."""
    folder = resources.files("posesdk_training") / "recipes"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_path(name: str) -> Path:
    """The file of a shipped recipe."""
    return Path(str(resources.files("posesdk_training") / "recipes" / f"{name}.yaml"))


def find_recipe(name: str) -> Path:
    """A configuration file, or a shipped recipe by its name. Raises DataError, with the known names, for neither."""
    path = Path(name)
    if path.exists():
        return path
    if name in recipe_names():
        return recipe_path(name)
    raise DataError(
        f"no training configuration {name!r}: neither a file nor one of the recipes {', '.join(recipe_names())}"
    )


def read_recipe(path: Path, *, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The tree of a YAML file, on top of that of its `base`: a shipped recipe, or a file beside it.

    Sections are merged key by key; lists and values are replaced. Raises DataError for a file that cannot be read, is
    no mapping, or is its own base.
    """
    import yaml  # not there in an installation for devices, whose command lines must still say so

    from posesdk_training.settings.overrides import merged

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the training configuration {path}: {error.strerror}; give a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        fault = f"line {mark.line + 1}, column {mark.column + 1}: {problem}" if mark and problem else error
        raise DataError(f"the training configuration {path} is no YAML: {fault}; correct it there") from error
    if not isinstance(tree, dict):
        raise DataError(
            f"the training configuration {path} is not a mapping of keys to values; it may begin with "
            "`base: logocap-nano`, and give below it what differs"
        )
    if BASE not in tree:
        return tree
    chain = (*seen, path.resolve())
    base = _base(path, str(tree.pop(BASE)))
    if base.resolve() in chain:
        raise DataError(f"the training configuration {path} is its own base ({base}); name another")
    return merged(read_recipe(base, seen=chain), tree)


def _base(path: Path, name: str) -> Path:
    beside = path.parent / name
    if name not in recipe_names() and not beside.is_file():
        raise DataError(
            f"the training configuration {path}: no base {name!r}; give a file beside it or one of the recipes "
            f"{', '.join(recipe_names())}"
        )
    return recipe_path(name) if name in recipe_names() else beside
