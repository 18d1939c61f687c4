"""Skeletons of data sets, and the model's skeleton in a configuration."""

import json
import logging

import numpy as np
import pytest
import yaml

from posesdk.skeleton import COCO_17, CROWDPOSE_14
from posesdk_runtimes.errors import DataError
from posesdk_training.config import load_config
from posesdk_training.data.skeletons import DEFAULT_SIGMA, category_skeleton, map_keypoints, skeleton_from

HORSE = {
    "id": 4,
    "name": "horse",
    "keypoints": ["L_Paw", "R_Paw", "Nose", "Tail"],
    "skeleton": [[1, 3], [2, 3], [3, 4]],
}


def warnings(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_category_counts_edges_from_one_and_names_its_sides(caplog):
    found = category_skeleton(HORSE, name="horses")
    assert found.name == "horses"
    assert found.edges == ((0, 2), (1, 2), (2, 3))
    assert found.flip_pairs == ((0, 1),)
    assert found.sigmas == (DEFAULT_SIGMA,) * 4
    assert len(warnings(caplog)) == 1
    assert "give `sigmas`" in warnings(caplog)[0]


def test_default_sigma_is_the_geometric_mean_of_cocos():
    assert pytest.approx(float(np.exp(np.log(COCO_17.sigmas).mean())), abs=5e-4) == DEFAULT_SIGMA


def test_category_with_sigmas_and_pairs_of_its_own(caplog):
    found = category_skeleton(HORSE | {"sigmas": [0.1, 0.1, 0.03, 0.05], "flip_pairs": [[0, 1]]}, name="horses")
    assert found.sigmas == (0.1, 0.1, 0.03, 0.05)
    assert found.flip_pairs == ((0, 1),)
    assert warnings(caplog) == []


def test_edges_that_hold_a_zero_count_from_zero():
    found = category_skeleton(HORSE | {"skeleton": [[0, 2], [2, 3]], "sigmas": [0.1] * 4}, name="horses")
    assert found.edges == ((0, 2), (2, 3))


def test_edges_to_nowhere_are_left_out_with_a_warning(caplog):
    found = category_skeleton(HORSE | {"skeleton": [[1, 3], [9, 3], [2, 2]], "sigmas": [0.1] * 4}, name="horses")
    assert found.edges == ((0, 2),)
    assert "2 of its 3 edges" in warnings(caplog)[0]


@pytest.mark.parametrize("registered", [COCO_17, CROWDPOSE_14], ids=lambda skeleton: skeleton.name)
def test_category_with_registered_keypoints_is_that_skeleton(registered, caplog):
    category = {"name": "person", "keypoints": list(registered.keypoints), "skeleton": [[16, 14]]}
    assert category_skeleton(category, name="mine") is registered
    assert warnings(caplog) == []


def test_mapping_gives_edges_and_sigmas_by_name():
    found = skeleton_from(
        {
            "name": "cat-3",
            "keypoints": ["nose", "paw left", "paw right"],
            "edges": [["nose", "paw left"], [0, 2]],
            "sigmas": {"nose": 0.03, "paw right": 0.1, "paw left": 0.1},
        }
    )
    assert (found.name, found.edges, found.sigmas) == ("cat-3", ((0, 1), (0, 2)), (0.03, 0.1, 0.1))
    assert found.flip_pairs == ((1, 2),)


def test_mapping_with_registered_keypoints_takes_their_sigmas(caplog):
    found = skeleton_from({"keypoints": list(COCO_17.keypoints), "edges": [[0, 1]]})
    assert found.sigmas == COCO_17.sigmas
    assert found.edges == ((0, 1),)
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"keypoints": "nose"}, "list of names"),
        ({"keypoints": ["nose", "nose"]}, "distinct"),
        ({"edges": [["nose", "ear"]]}, "'ear' is none of its keypoints"),
        ({"edges": [[0, 9]]}, "outside"),
        ({"edges": [[0, 1, 2]]}, "pairs"),
        ({"sigmas": {"nose": 0.1}}, "sigmas are named"),
        ({"sigmas": [0.1]}, "expected 2"),
    ],
)
def test_mapping_that_is_no_skeleton_is_refused(changes, fault):
    with pytest.raises(ValueError, match=fault):
        skeleton_from({"name": "s", "keypoints": ["nose", "tail"], "sigmas": 0.1} | changes)


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_skeleton_is_read_from_a_file(tmp_path, suffix):
    tree = {"keypoints": ["nose", "tail"], "edges": [[0, 1]], "sigmas": 0.05}
    path = tmp_path / f"fish.{suffix}"
    path.write_text(json.dumps(tree) if suffix == "json" else yaml.safe_dump(tree))
    found = skeleton_from(str(path))
    assert (found.name, found.keypoints, found.sigmas) == ("fish", ("nose", "tail"), (0.05, 0.05))


def test_skeleton_is_read_from_an_annotation_file(tmp_path):
    path = tmp_path / "horses.json"
    path.write_text(json.dumps({"images": [], "annotations": [], "categories": [HORSE]}))
    assert skeleton_from(path).edges == ((0, 2), (1, 2), (2, 3))


@pytest.mark.parametrize("content", ["[1, 2]", "{", '{"name": "x"}'])
def test_file_without_a_skeleton_is_refused_by_name(tmp_path, content):
    path = tmp_path / "odd.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"odd\.json"):
        skeleton_from(path)


def test_missing_file_is_named_with_what_else_can_be_given():
    with pytest.raises(DataError, match=r"coco-18.*coco-17, crowdpose-14"):
        skeleton_from("coco-18")


def test_keypoints_are_mapped_by_name_and_spelling():
    assert map_keypoints(("r_hip", "LHip", "spine"), ("left_hip", "neck", "right_hip")) == (1, -1, 0)
    assert map_keypoints(CROWDPOSE_14.keypoints, COCO_17.keypoints) == (-1,) * 5 + tuple(range(12))


def test_names_of_the_same_meaning_are_told_apart_by_their_spelling():
    assert map_keypoints(("head", "head_top"), ("head_top", "head")) == (1, 0)
    assert map_keypoints(("head", "head_top"), ("top_head",)) == (-1,)


def configuration(folder, model, *sets):
    entries = []
    for number, categories in enumerate(sets):
        path = folder / f"{number}.json"
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": categories}))
        entries.append({"name": f"set{number}", "annotations": path.name, "images": "images"})
    tree = {
        "name": "any",
        "model": model,
        "data": {"root": str(folder), "sets": entries},
        "phases": [{"mixture": {"set0": 1.0}, "sizes": {64: 1.0}}],
        "steps": 1,
    }
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


COW = {"id": 1, "name": "cow", "keypoints": ["nose", "tail"], "skeleton": [[1, 2]], "sigmas": [0.1, 0.2]}


def test_models_skeleton_is_that_of_the_data(tmp_path):
    model = load_config(configuration(tmp_path, {"preset": "logocap-nano", "skeleton": "data"}, [COW], [COW])).model
    assert (model.skeleton.name, model.skeleton.edges, model.skeleton.sigmas) == ("set0", ((0, 1),), (0.1, 0.2))
    assert model.decode.nms_keypoints == 1
    assert model.decode.center_threshold == 0.05  # the preset's


def test_models_skeleton_is_that_of_shards(tmp_path):
    index = pytest.importorskip("posesdk_training.data.shard_index", reason="shards need webdataset")
    entry = index.ShardEntry(file="0.tar", images=1, annotations=1, size=1, sha256="0")
    folder = tmp_path / "shards"
    folder.mkdir()
    written = index.ShardIndex(name="cows", images=1, annotations=1, categories=[COW], shards=(entry,))
    (folder / "index.json").write_text(written.model_dump_json())
    path = configuration(tmp_path, {"preset": "logocap-nano", "skeleton": "data"}, [COW])
    tree = yaml.safe_load(path.read_text())
    tree["data"]["sets"] = [{"name": "set0", "shards": "shards"}]
    path.write_text(yaml.safe_dump(tree))
    assert load_config(path).model.skeleton.sigmas == (0.1, 0.2)


def test_models_skeleton_is_that_of_a_set(tmp_path):
    model = {"preset": "logocap-nano", "skeleton": {"from": "set1"}}
    found = load_config(configuration(tmp_path, model, [COW], [HORSE | {"sigmas": [0.1] * 4}])).model
    assert found.skeleton.keypoints == ("L_Paw", "R_Paw", "Nose", "Tail")


def test_sets_that_differ_want_a_choice(tmp_path):
    model = {"preset": "logocap-nano", "skeleton": "data"}
    with pytest.raises(DataError, match=r"'set0' and 'set1' have different keypoints.*from: set0"):
        load_config(configuration(tmp_path, model, [COW], [HORSE]))


def test_models_skeleton_has_a_name_or_parts_of_its_own(tmp_path):
    path = configuration(tmp_path, {"preset": "logocap-nano", "skeleton": "crowdpose-14"}, [COW])
    assert load_config(path).model.skeleton == CROWDPOSE_14
    assert load_config(path).model.decode.nms_keypoints == 7
    default = load_config(configuration(tmp_path, "logocap-nano", [COW])).model
    assert default.skeleton == COCO_17
    assert default.decode.nms_keypoints == 8


def test_setting_the_skeleton_from_the_command_line(tmp_path):
    path = configuration(tmp_path, "logocap-nano", [COW])
    found = load_config(path, ("model.skeleton=data", "model.decode.nms_keypoints=2")).model
    assert found.keypoint_count == 2
    assert found.decode.nms_keypoints == 2


def test_skeleton_of_a_set_in_the_configuration_wins_over_its_file(tmp_path):
    path = configuration(tmp_path, {"preset": "logocap-nano", "skeleton": "data"}, [COW])
    (tmp_path / "better.yaml").write_text(yaml.safe_dump({"keypoints": ["snout", "tail"], "sigmas": 0.05}))
    config = load_config(path, ("data.sets.0.skeleton=better.yaml",))
    assert config.data.sets[0].skeleton.keypoints == ("snout", "tail")
    assert config.model.skeleton == config.data.sets[0].skeleton


@pytest.mark.parametrize(
    ("skeleton", "fault"),
    [
        ({"from": "nobody"}, "no data set named 'nobody'"),
        ({"keypoints": ["a"], "sigmas": [1, 2]}, "expected 1"),
        ("data", "declares no keypoints"),
        (3, "name, file or mapping"),
    ],
)
def test_skeleton_that_cannot_be_had_is_refused(tmp_path, skeleton, fault):
    with pytest.raises(DataError, match=fault):
        load_config(configuration(tmp_path, {"preset": "logocap-nano", "skeleton": skeleton}, []))


def test_configuration_of_a_run_is_read_again_as_it_was(tmp_path):
    config = load_config(configuration(tmp_path, {"preset": "logocap-nano", "skeleton": "data"}, [COW]))
    again = type(config).model_validate_json(config.model_dump_json())
    assert again == config


def test_misspelt_key_of_a_skeleton_is_not_passed_over():
    with pytest.raises(ValueError, match="'sigma'; did you mean 'sigmas'"):
        skeleton_from({"keypoints": ["nose", "tail"], "sigma": 0.1})
