import json
import zipfile

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from posesdk.skeleton import COCO_17
from posesdk_runtimes.errors import DataError
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.data.resident.pack import MIB, read_packs, write_packs
from posesdk_training.data.resident.source import resident_batches
from posesdk_training.program import app

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools

LIMBS = {"annotated_keypoints": COCO_17.keypoints[5:], "supervised_window": 0.12}


@pytest.fixture
def sets(make_config):
    config = make_config({"whole": {}, "limbs": LIMBS})
    return config, [load_keypoint_set(entry, config.model.skeleton) for entry in config.data.sets]


def with_packs(config, paths):
    return config.model_copy(update={"data": config.data.model_copy(update={"pack": tuple(paths)})})


def test_packed_photos_and_persons_are_those_of_the_folders(sets, tmp_path):
    _, (whole, limbs) = sets
    (path,) = write_packs([whole, limbs], tmp_path / "all.pack", long_side=1000)
    packed = read_packs([path], COCO_17, ["whole", "limbs"])
    assert packed.labelled == {"whole": True, "limbs": True}
    assert packed.annotated["limbs"] == limbs.annotated.tolist()
    assert len(packed.sources) == 8
    by_name = {source.name: source for source in packed.sources}
    for entry in (whole, limbs):
        for record in entry.images:
            source = by_name[f"{entry.config.name}/{record.path.name}"]
            assert len(source.persons) == len(record.persons)
            for one, other in zip(source.persons, record.persons, strict=True):
                np.testing.assert_allclose(one.keypoints, other.keypoints, atol=0.006)
                np.testing.assert_allclose(one.box, other.box, atol=0.006)
                assert one.area == pytest.approx(other.area, abs=0.006)
                assert one.is_crowd == other.is_crowd
            assert source.decode().mask.any()


def test_shrunk_photo_keeps_its_keypoints_in_their_places(sets, tmp_path):
    _, (whole, _) = sets
    (path,) = write_packs([whole], tmp_path / "all.pack", long_side=100)
    packed = read_packs([path], COCO_17, ["whole"])
    by_name = {source.name: source for source in packed.sources}
    source, record = by_name["whole/3.png"], whole.images[2]  # 320 px high, 240 px wide
    assert source.decode().pixels.shape == (100, 75, 3)
    assert source.decode().mask.shape == (100, 75)
    points, expected = source.persons[0].keypoints, record.persons[0].keypoints
    labelled = expected[:, 2] > 0
    np.testing.assert_allclose(points[labelled, :2], (expected[labelled, :2] + 0.5) / 3.2 - 0.5, atol=0.006)
    assert source.persons[0].area == pytest.approx(record.persons[0].area / 3.2**2, abs=0.01)


def test_packs_keep_to_their_size_and_hold_every_photo_once(make_config, tmp_path):
    config = make_config({"one": {}})
    keypoint_set = load_keypoint_set(config.data.sets[0], config.model.skeleton)
    many = type(keypoint_set)(
        keypoint_set.config, keypoint_set.images * 8, keypoint_set.annotated, keypoint_set.skeleton
    )
    paths = write_packs([many], tmp_path / "all.pack", max_mib=0.06)
    assert len(paths) > 1
    assert [path.name for path in paths] == [f"all-{n}.pack" for n in range(1, len(paths) + 1)]
    assert all(path.stat().st_size <= 0.06 * MIB for path in paths)
    assert len(read_packs(paths, COCO_17, ["one"]).sources) == 32
    assert sorted(tmp_path.glob("*.pack")) == paths


def test_batches_of_packs_are_those_of_the_folders(sets, tmp_path):
    config, both = sets
    paths = write_packs(both, tmp_path / "all.pack", long_side=1000)
    from_packs = resident_batches(with_packs(config, paths), torch.device("cpu"))
    from_folders = resident_batches(config, torch.device("cpu"))
    names = {name for _, batch in zip(range(4), from_packs, strict=False) for name in batch.names}
    assert names <= {name for _, batch in zip(range(40), from_folders, strict=False) for name in batch.names}
    assert len(from_packs) == len(from_folders) == 40


def test_command_packs_and_a_pack_needs_no_folder(make_config, tmp_path):
    config = make_config({"one": {}})
    path = tmp_path / "run.json"
    path.write_text(config.model_dump_json())
    result = CliRunner().invoke(app, ["pack", str(path), "--output", str(tmp_path / "run.pack")])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "run-1.pack") in result.stdout
    (tmp_path / "one" / "keypoints.json").unlink()
    batch = next(iter(resident_batches(with_packs(config, [tmp_path / "run-1.pack"]), torch.device("cpu"))))
    assert batch.images.shape == (4, 3, 128, 128)


def test_pack_without_a_readable_photo_says_where_to_look(sets, tmp_path):
    _, (whole, _) = sets
    for record in whole.images:
        record.path.write_bytes(b"none")
    with pytest.raises(DataError, match=r"none of the photos of whole can be read; check data\.sets and data\.root"):
        write_packs([whole], tmp_path / "all.pack")
    assert not list(tmp_path.glob("*.pack"))


def test_pack_of_another_skeleton_is_refused(sets, tmp_path):
    _, both = sets
    paths = write_packs(both, tmp_path / "all.pack")
    shorter = COCO_17.model_copy(update={"keypoints": COCO_17.keypoints[:5]})
    with pytest.raises(DataError, match="17 keypoints"):
        read_packs(paths, shorter, ["whole"])


def test_file_that_is_no_pack_is_named(tmp_path):
    path = tmp_path / "broken.pack"
    path.write_bytes(b"none")
    with pytest.raises(DataError, match=r"broken\.pack.*posesdk-train pack"):
        read_packs([path], COCO_17, ["one"])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("records.json", json.dumps({"posesdk_pack": 9}))
    with pytest.raises(DataError, match="version 9"):
        read_packs([path], COCO_17, ["one"])
    with pytest.raises(DataError, match=r"data\.pack"):
        read_packs([tmp_path / "missing.pack"], COCO_17, ["one"])


def test_set_that_no_pack_holds_is_named(sets, tmp_path):
    config, (whole, _) = sets
    paths = write_packs([whole], tmp_path / "all.pack")
    with pytest.raises(DataError, match="limbs"):
        resident_batches(with_packs(config, paths), torch.device("cpu"))
