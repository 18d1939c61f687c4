"""Recipes that build on other files."""

from pathlib import Path

import pytest

from posesdk_runtimes.errors import DataError
from posesdk_training.config import load_config
from posesdk_training.settings.recipe import find_recipe, read_recipe, recipe_names, recipe_path


def test_recipe_says_only_what_it_changes_of_its_base(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("steps: 5\noptimizer: {kind: adamw, learning_rate: 0.1}\nlist: [1, 2]\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\noptimizer: {learning_rate: 0.2}\nlist: [3]\n")
    assert read_recipe(tmp_path / "second.yaml") == {
        "steps": 5,
        "optimizer": {"kind": "adamw", "learning_rate": 0.2},
        "list": [3],
    }


def test_key_with_a_plus_adds_to_the_list_of_the_base(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("data: {sets: [1, 2], workers: 3}\n")
    (tmp_path / "second.yaml").write_text("base: first.yaml\ndata: {sets+: [3], more+: [4]}\n")
    assert read_recipe(tmp_path / "second.yaml") == {"data": {"sets": [1, 2, 3], "workers": 3, "more": [4]}}


def test_file_of_a_user_can_build_on_a_shipped_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: logocap-nano\nname: mine\nbatch_size: 3\n")
    mine, shipped = load_config(path), load_config(recipe_path("logocap-nano"))
    assert (mine.name, mine.batch_size) == ("mine", 3)
    assert mine.model_copy(update={"name": shipped.name, "batch_size": shipped.batch_size}) == shipped


@pytest.mark.parametrize("text", ["base: second.yaml\n", "base: first.yaml\n"], ids=["in a circle", "itself"])
def test_recipe_that_is_its_own_base_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "first.yaml").write_text(text)
    (tmp_path / "second.yaml").write_text("base: first.yaml\n")
    with pytest.raises(DataError, match="its own base"):
        read_recipe(tmp_path / "first.yaml")


def test_unknown_base_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("base: nothing\n")
    with pytest.raises(DataError, match=r"no base 'nothing'.*logocap-w32"):
        read_recipe(tmp_path / "first.yaml")


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipe_makes_the_model_that_it_is_called_after(name: str) -> None:
    config = load_config(find_recipe(name))
    assert config.name == name
    assert config.model.name == name.removesuffix("-rendered").removesuffix("-short")
    assert (config.model.convention == "paper") == name.endswith("-paper")


def test_paper_recipe_differs_from_the_published_one_in_its_convention_alone() -> None:
    published, paper = (load_config(recipe_path(name)) for name in ("logocap-w32", "logocap-w32-paper"))
    changed = {key for key, value in paper if value != getattr(published, key)}
    assert changed == {"name", "model", "loss", "targets"}
    assert paper.loss.oks_weight == "similarity"


def test_fault_of_yaml_is_one_line_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("steps: 5\nphases: [1\nname: x\n")
    with pytest.raises(DataError, match=r"line 3, column 5: expected ',' or '\]'") as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)
