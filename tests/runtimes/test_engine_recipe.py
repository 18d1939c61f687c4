"""The build recipe of TensorRT engines: round trip, refusals, and what holds for a graph without one."""

import json
from pathlib import Path

import numpy as np
import pytest

from posesdk_runtimes.base import TensorSpec
from posesdk_runtimes.engines.recipe import (
    GraphRecipe,
    ShapeRange,
    default_recipe,
    parse_recipes,
    read_recipe,
    read_recipes,
    write_recipes,
)
from posesdk_runtimes.errors import ArtifactError

IMAGE = ShapeRange((1, 32, 32, 3), (1, 256, 320, 3), (2, 320, 320, 3))


def test_recipes_read_back_as_written_and_the_order_changes_no_byte(tmp_path: Path) -> None:
    recipes = {"trunk": GraphRecipe({"image": IMAGE}, workspace_mib=512), "adapt": GraphRecipe(strongly_typed=False)}
    write_recipes(tmp_path / "a.json", recipes)
    write_recipes(tmp_path / "b.json", dict(reversed(recipes.items())))
    assert read_recipes(tmp_path / "a.json") == recipes
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_graph_finds_its_recipe_beside_it(tmp_path: Path) -> None:
    assert read_recipe(tmp_path / "trunk.onnx") is None
    write_recipes(tmp_path / "engine.json", {"trunk": GraphRecipe({"image": IMAGE})})
    assert read_recipe(tmp_path / "trunk.onnx") == GraphRecipe({"image": IMAGE})
    assert read_recipe(tmp_path / "adapt.onnx") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "JSONDecodeError"),
        ("[]", "AttributeError"),
        ('{"trunk": {"workspace": 3}}', "unknown field 'workspace'"),
        ('{"trunk": {"workspace_mib": 0}}', "at least 1 MiB"),
        ('{"trunk": {"workspace_mib": "big"}}', "wrong type"),
        ('{"trunk": {"profiles": {"image": {"min": [1], "opt": [1]}}}}', "'max'"),
        ('{"trunk": {"profiles": {"image": {"min": [1.5], "opt": [2], "max": [2]}}}}', "whole numbers"),
        ('{"trunk": {"profiles": {"image": {"min": [2], "opt": [1], "max": [3]}}}}', "min <= opt <= max"),
        ('{"trunk": {"profiles": {"image": {"min": [1], "opt": [1, 2], "max": [3]}}}}', "one rank"),
    ],
)
def test_a_broken_recipe_is_refused_with_its_file_and_fault(content: str, message: str) -> None:
    with pytest.raises(ArtifactError, match=f"engine.json.*{message}.*convert"):
        parse_recipes(content.encode(), "x/engine.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no\.json"):
        read_recipes(tmp_path / "no.json")


def test_without_a_recipe_free_dimensions_get_ranges_and_fixed_ones_stay() -> None:
    image = TensorSpec("image", (None, None, None, 3), np.dtype(np.uint8))
    context = TensorSpec("context", (None, 68, 5, 5), np.dtype(np.float32))
    fixed = TensorSpec("fixed", (1, 4), np.dtype(np.float32))
    profiles = default_recipe((image, context, fixed)).profiles
    assert set(profiles) == {"image", "context"}
    assert profiles["image"] == ShapeRange((1, 32, 32, 3), (1, 320, 320, 3), (2, 640, 640, 3))
    assert profiles["context"] == ShapeRange((1, 68, 5, 5), (5, 68, 5, 5), (64, 68, 5, 5))


def test_the_file_is_the_documented_json(tmp_path: Path) -> None:
    write_recipes(tmp_path / "engine.json", {"trunk": GraphRecipe({"image": IMAGE})})
    assert json.loads((tmp_path / "engine.json").read_text()) == {
        "trunk": {
            "profiles": {"image": {"min": [1, 32, 32, 3], "opt": [1, 256, 320, 3], "max": [2, 320, 320, 3]}},
            "strongly_typed": True,
            "workspace_mib": 1024,
        }
    }
