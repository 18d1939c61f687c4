from importlib import resources

import pytest
import yaml

from posesdk_runtimes.errors import DataError
from posesdk_training.config import load_config
from posesdk_training.models.build import preset

TREE = {
    "name": "run",
    "model": "logocap-nano",
    "data": {"sets": [{"name": "a", "annotations": "a.json", "images": "a"}]},
    "phases": [
        {"until": 0.5, "mixture": {"a": 1.0}, "sizes": {128: 0.5, 160: 0.5}, "adaptation": False},
        {"until": 1.0, "mixture": {"a": 1.0}, "sizes": {160: 1.0}},
    ],
    "steps": 100,
}


@pytest.fixture
def write(tmp_path):
    def save(**changes):
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(TREE | changes))
        return path

    return save


def test_model_by_name_is_its_preset(write):
    assert load_config(write()).model == preset("logocap-nano")


def test_override_changes_one_value_and_nothing_else(write):
    plain, changed = load_config(write()), load_config(write(), ("optimizer.learning_rate=0.5",))
    assert changed.optimizer.learning_rate == 0.5
    restored = changed.model_copy(update={"optimizer": plain.optimizer})
    assert restored == plain


def test_overrides_are_parsed_as_yaml(write):
    config = load_config(write(), ("augment.border=[1, 2, 3]", "optimizer.clip_norm=null", "channels_last=true"))
    assert config.augment.border == (1, 2, 3)
    assert config.optimizer.clip_norm is None
    assert config.channels_last is True


@pytest.mark.parametrize("model", ["logocap-nano", {"preset": "logocap-nano"}], ids=["name", "preset"])
def test_override_reaches_into_a_preset(write, model):
    config = load_config(write(model=model), ("model.adaptation.local_size=5",))
    expected = preset("logocap-nano")
    assert config.model.adaptation.local_size == 5
    adaptation = config.model.adaptation.model_copy(update={"local_size": expected.adaptation.local_size})
    assert config.model.model_copy(update={"adaptation": adaptation}) == expected


@pytest.mark.parametrize(("step", "adaptation"), [(0, False), (49, False), (50, True), (99, True), (100, True)])
def test_phase_of_a_step(write, step, adaptation):
    assert load_config(write()).phase_at(step).adaptation is adaptation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"colour": "red"}, "colour"),
        ({"loss": {"heatmap": "huber"}}, r"loss\.heatmap"),
        ({"phases": []}, "phases must end at rising fractions"),
        ({"phases": [TREE["phases"][0]]}, "the last at 1.0"),
        ({"phases": [{"mixture": {"b": 1.0}, "sizes": {128: 1.0}}]}, r"no data set named \['b'\]"),
        ({"phases": [{"mixture": {"a": 0.0}, "sizes": {128: 1.0}}]}, "positive weight"),
        ({"phases": [{"mixture": {"a": 1.0}, "sizes": {130: 1.0}}]}, "not multiples of 32"),
        ({"phases": [{"mixture": {"a": 1.0}, "sizes": {0: 1.0}}]}, r"phases\.0\.sizes"),
        ({"phases": [{"mixture": {"a": -1.0}, "sizes": {128: 1.0}}]}, r"phases\.0\.mixture"),
        ({"data": {"sets": 2 * TREE["data"]["sets"]}}, "names of their own"),
        ({"model": "logocap-w32", "loss": {"heatmap": "focal"}}, "logits of a sigmoid"),
        ({"targets": {"center_keypoints": ["tail"]}}, r"center_keypoints: \['tail'\]"),
    ],
)
def test_configuration_that_does_not_fit_is_named(write, changes, message):
    with pytest.raises(DataError, match=message):
        load_config(write(**changes))


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", ""])
def test_file_that_is_no_configuration_is_named(tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=r"broken\.yaml"):
        load_config(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.yaml"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize("override", ["steps", "=3"])
def test_override_without_key_and_value_is_refused(write, override):
    with pytest.raises(ValueError, match="key=value"):
        load_config(write(), (override,))


def test_override_below_a_value_is_refused(write):
    with pytest.raises(ValueError, match="'steps' is a value"):
        load_config(write(), ("steps.more=1",))


def test_paper_convention_sets_the_switches_that_are_not_set(tmp_path):
    tree = {
        "name": "x",
        "model": "logocap-w32",
        "data": {"sets": [{"name": "coco", "annotations": "a.json", "images": "b"}]},
        "phases": [{"mixture": {"coco": 1.0}, "sizes": {512: 1.0}}],
        "steps": 1,
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(tree))
    published = load_config(path)
    paper = load_config(path, ("model.convention=paper", "loss.refined_target_sigma=8"))
    assert (published.loss.oks_weight, paper.loss.oks_weight) == ("gain", "similarity")
    assert (published.loss.offset_normaliser, paper.loss.offset_normaliser) == ("elements", "cells")
    assert (published.targets.offset_weight, paper.targets.offset_weight) == ("inverse_sqrt_area", "area")
    assert paper.loss.gt_matching == "clamped_mean"
    assert paper.loss.refined_target_sigma == 8


@pytest.mark.parametrize("recipe", ["logocap-w32", "logocap-w48", "logocap-small", "logocap-nano"])
def test_shipped_recipe_loads(recipe):
    config = load_config(resources.files("posesdk_training") / "recipes" / f"{recipe}.yaml")
    assert config.name == config.model.name == recipe


def test_data_root_stands_before_relative_paths_alone(tmp_path):
    sets = [{"name": "a", "annotations": "a.json", "images": "/photos"}]
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**TREE, "data": {"root": "elsewhere", "sets": sets}}))
    (entry,) = load_config(path).data.sets
    assert (str(entry.annotations), str(entry.images)) == ("elsewhere/a.json", "/photos")
    (moved,) = load_config(path, ("data.root=/mnt/data",)).data.sets
    assert str(moved.annotations) == "/mnt/data/a.json"


def test_occluders_lie_below_data_root_like_the_sets(tmp_path):
    sets = [{"name": "a", "annotations": "a.json", "images": "photos"}]
    path = tmp_path / "run.yaml"
    occluders = {"occluders": {"folder": "people/cutouts"}}
    path.write_text(yaml.safe_dump({**TREE, "data": {"root": "elsewhere", "sets": sets}, "augment": occluders}))
    assert str(load_config(path).augment.occluders.folder) == "elsewhere/people/cutouts"
    moved = load_config(path, ("augment.occluders.folder=/mnt/cutouts",))
    assert str(moved.augment.occluders.folder) == "/mnt/cutouts"


@pytest.mark.parametrize(
    ("images", "expected"),
    [("photos", "elsewhere/photos"), ("/photos", "/photos"), (["a.jpg", "/b.jpg"], ["elsewhere/a.jpg", "/b.jpg"])],
)
def test_preview_and_validation_lie_below_data_root_like_the_sets(tmp_path, images, expected):
    sets = [{"name": "a", "annotations": "a.json", "images": "photos"}]
    looks = {"preview": {"images": images}, "validation": {"annotations": "val.json", "images": "val"}}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**TREE, "data": {"root": "elsewhere", "sets": sets}, **looks}))
    config = load_config(path)
    tree = config.model_dump(mode="json")
    assert tree["preview"]["images"] == expected
    assert (tree["validation"]["annotations"], tree["validation"]["images"]) == ("elsewhere/val.json", "elsewhere/val")
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(tree))
    assert load_config(again) == config


def test_entries_of_lists_and_sizes_can_be_overridden(write):
    sets = [{"name": name, "annotations": f"{name}.json", "images": "photos"} for name in "ab"]
    phase = {"mixture": {"a": 1.0}, "sizes": {64: 1.0, 128: 1.0}}
    path = write(data={"sets": sets}, phases=[phase])
    changes = ("data.sets.1.images=/elsewhere", "phases.0.sizes.64=0.25", "model.adaptation.message_channels=[]")
    config = load_config(path, (*changes, "model.adaptation.reweigh_sigma=null", "optimizer.learning_rate=2e-3"))
    assert [str(entry.images) for entry in config.data.sets] == ["photos", "/elsewhere"]
    assert config.phases[0].sizes == {64: 0.25, 128: 1.0}
    assert config.model.adaptation.message_channels == ()
    assert config.model.adaptation.reweigh_sigma is None
    assert config.optimizer.learning_rate == 0.002


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("phases.2.adaptation=false", "'phases' is a list of 2, which has no '2'"),
        ("phases.first.adaptation=false", "has no 'first'"),
        ("steps=[", "as YAML"),
    ],
)
def test_override_that_cannot_be_applied_says_why(write, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(write(), (override,))


def test_fault_of_a_configuration_is_one_line_with_its_field(write):
    with pytest.raises(DataError) as caught:
        load_config(write(), ("optimizer.speed=1", "steps=abc"))
    message = str(caught.value)
    assert "optimizer.speed: there is no such key" in message
    assert "steps: Input should be a valid integer" in message
    assert "\n" not in message
    assert "http" not in message


def test_configuration_that_is_no_text_is_refused_by_name(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary\.yaml"):
        load_config(path)
