import hashlib
import itertools
import json
import logging
import shutil
import tarfile
from collections import Counter
from itertools import islice

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from posesdk.skeleton import COCO_17
from posesdk_runtimes.errors import DataError
from posesdk_training.data.batches import Place, SampleKey, StepSampler, collate
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.data.dataset import KeypointDataset
from posesdk_training.data.photos import PhotoReader
from posesdk_training.data.shard_index import INDEX_FILE, find_shards
from posesdk_training.data.shard_sample import Resize, scale_annotation
from posesdk_training.data.shard_writer import ShardSettings, write_shards
from posesdk_training.data.shards import Reader, ShardStream
from posesdk_training.program import app
from posesdk_training.settings.data import DatasetConfig
from posesdk_training.train import fit
from posesdk_training.trials.dry_run_report import _streamed

IMAGES = 24


@pytest.fixture(scope="module")
def folder_set(tiny_run, tmp_path_factory):
    """Annotations and images of 24 photos; photo 3 has nobody."""
    annotations, images = tiny_run.write_tiny_set(tmp_path_factory.mktemp("folder"), images=IMAGES, size=48)
    tree = json.loads(annotations.read_text())
    tree["annotations"] = [entry for entry in tree["annotations"] if entry["image_id"] != 3]
    annotations.write_text(json.dumps(tree))
    return annotations, images


@pytest.fixture(scope="module")
def whole_shards(folder_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "set"
    write_shards(*folder_set, folder, ShardSettings(shard_size=3))
    return folder


@pytest.fixture
def shards(whole_shards, tmp_path):
    """Eight shards of three images each, to be spoiled."""
    return shutil.copytree(whole_shards, tmp_path / "set")


ALONE = Reader()


def stream(folder, reader=ALONE, **changes):
    return ShardStream(find_shards(str(folder)), reader, seed=(0, 3, 0), **{"buffer": 5} | changes)


def names(samples):
    return [json.loads(sample.annotation)["image"]["file_name"] for sample in samples]


def shard_config(tiny_run, folder_set, folder, **changes):
    config = tiny_run.tiny_config(*folder_set, **changes)
    data = config.data.model_copy(update={"sets": (DatasetConfig(name="tiny", shards=str(folder)),)})
    return config.model_copy(update={"data": data})


def spoil(shard, length):
    shard.write_bytes(shard.read_bytes()[:length])


# What is written


def test_shards_give_the_records_and_pixels_of_the_folder(tiny_run, folder_set, whole_shards):
    reader = PhotoReader(shard_config(tiny_run, folder_set, whole_shards))
    key = SampleKey(0, 64, 0)
    photos = [reader.draw(np.random.default_rng(0), key) for _ in range(IMAGES)]
    entry = DatasetConfig(name="tiny", annotations=folder_set[0], images=folder_set[1])
    truth = {record.image_id: record for record in load_keypoint_set(entry, COCO_17).images}
    assert {photo.record.image_id for photo in photos} == set(truth)
    for photo in photos:
        expected = truth[photo.record.image_id]
        assert len(photo.record.persons) == len(expected.persons)
        for person, other in zip(photo.record.persons, expected.persons, strict=True):
            np.testing.assert_array_equal(person.keypoints, other.keypoints)
            np.testing.assert_array_equal(person.box, other.box)
            assert person.area == other.area
        assert photo.record.masked == expected.masked
        np.testing.assert_array_equal(photo.image, cv2.imread(str(expected.path)))


def test_index_says_what_the_shards_hold(folder_set, whole_shards):
    index = json.loads((whole_shards / INDEX_FILE).read_text())
    assert index["images"] == IMAGES
    assert index["annotations"] == IMAGES - 1
    assert index["categories"][0]["keypoints"] == list(COCO_17.keypoints)
    for entry in index["shards"]:
        data = (whole_shards / entry["file"]).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    with tarfile.open(whole_shards / index["shards"][0]["file"]) as archive:
        members = archive.getnames()
        stored = archive.extractfile(members[1]).read()
        name = json.loads(archive.extractfile(members[0]).read())["image"]["file_name"]
    assert sorted(members) == sorted(f"{n:09d}.{kind}" for n in range(3) for kind in ("json", "png"))
    assert stored == (folder_set[1] / name).read_bytes()


def test_resized_annotations_fit_the_resized_image(tmp_path):
    image = np.zeros((40, 80, 3), np.uint8)
    image[20:28, 40:56] = 255
    cv2.imwrite(str(tmp_path / "a.png"), image)
    box = [40, 20, 16, 8]
    polygon = [40, 20, 56, 20, 56, 28, 40, 28]
    points = [*[0, 0, 0] * 16, 47.5, 23.5, 2]
    person = {"id": 1, "image_id": 5, "bbox": box, "area": 128.0, "segmentation": [polygon], "keypoints": points}
    tree = {"images": [{"id": 5, "file_name": "a.png", "width": 80, "height": 40}], "annotations": [person]}
    (tmp_path / "a.json").write_text(json.dumps(tree))
    write_shards(tmp_path / "a.json", tmp_path, tmp_path / "out", ShardSettings(resize=Resize(20, 95)))
    (sample,) = islice(stream(tmp_path / "out"), 1)
    small = cv2.imdecode(np.frombuffer(sample.image, np.uint8), cv2.IMREAD_GRAYSCALE)
    content = json.loads(sample.annotation)
    assert small.shape == (10, 20)
    assert (content["image"]["width"], content["image"]["height"]) == (20, 10)
    (scaled,) = content["annotations"]
    assert scaled["bbox"] == [10, 5, 4, 2]
    assert scaled["area"] == 8
    assert scaled["segmentation"] == [[10, 5, 14, 5, 14, 7, 10, 7]]
    rows, columns = np.nonzero(small > 127)
    assert scaled["keypoints"][-3:] == [columns.mean(), rows.mean(), 2]
    assert scaled["keypoints"][:3] == [0, 0, 0]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
def test_run_lengths_are_resized():
    mask = np.zeros((40, 80), np.uint8)
    mask[20:28, 40:56] = 1
    flat = mask.ravel(order="F")
    counts = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    scaled = scale_annotation({"segmentation": {"size": [40, 80], "counts": counts}}, (0.25, 0.25), (20, 10))
    from pycocotools import mask as coco_mask

    expected = np.zeros((10, 20), np.uint8)
    expected[5:7, 10:14] = 1
    np.testing.assert_array_equal(coco_mask.decode(scaled["segmentation"]), expected)


def test_corrupt_image_is_left_out_and_named(folder_set, tmp_path, caplog):
    images = shutil.copytree(folder_set[1], tmp_path / "images")
    (images / "7.png").write_bytes(b"no image")
    (images / "9.png").unlink()
    index = write_shards(folder_set[0], images, tmp_path / "out", ShardSettings(shard_size=10))
    assert index.images == IMAGES - 2
    assert sorted(name.split("/")[-1].split(":")[0].split()[0] for name in index.skipped) == ["7.png", "9.png"]
    assert len([record for record in caplog.records if "left out" in record.message]) == 2
    assert sorted(names(islice(stream(tmp_path / "out"), IMAGES - 2))) == sorted(
        f"{n}.png" for n in range(IMAGES) if n not in (7, 9)
    )


def test_interrupted_writing_goes_on_to_the_same_shards(folder_set, whole_shards, tmp_path):
    class Killed(Exception):
        pass

    def kill(done, total):
        if done >= 12:
            raise Killed

    folder = tmp_path / "set"
    with pytest.raises(Killed):
        write_shards(*folder_set, folder, ShardSettings(shard_size=3), advance=kill)
    assert len(list(folder.glob("*.tar"))) == 4
    (folder / ".set-000004.tar.tmp").write_bytes(b"half a shard")
    with pytest.raises(DataError, match="interrupted"):
        find_shards(str(folder))
    written = (folder / "set-000000.tar").stat().st_mtime_ns
    write_shards(*folder_set, folder, ShardSettings(shard_size=3))
    assert (folder / "set-000000.tar").stat().st_mtime_ns == written
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in whole_shards.iterdir()
    }


def test_other_settings_do_not_mix_with_shards_that_are_there(folder_set, shards):
    with pytest.raises(DataError, match="other annotations or settings"):
        write_shards(*folder_set, shards, ShardSettings(shard_size=4))


def test_command_writes_shards(folder_set, tmp_path):
    options = ["--annotations", str(folder_set[0]), "--images", str(folder_set[1]), "--shard-size", "10"]
    result = CliRunner().invoke(app, ["shard", *options, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "24 images, 23 annotations in 3 shards" in result.output
    assert find_shards(str(tmp_path / "out")).images == IMAGES


# What is read


def test_readers_take_disjoint_samples_that_cover_the_set_each_epoch(whole_shards):
    readers = [stream(whole_shards, Reader(index, 4)) for index in range(4)]
    for _ in range(3):
        epoch = [names(islice(reader, IMAGES // 4)) for reader in readers]
        assert sorted(itertools.chain(*epoch)) == sorted(f"{n}.png" for n in range(IMAGES))


def test_ranks_and_loader_processes_take_disjoint_samples_that_cover_the_set(tiny_run, folder_set, whole_shards):
    config = shard_config(tiny_run, folder_set, whole_shards, batch_size=3, steps=4)
    seen = Counter()
    for rank in (0, 1):
        loader = DataLoader(
            _Names(config), batch_sampler=StepSampler(config, rank=rank, world=2), num_workers=2, collate_fn=list
        )
        seen.update(name for batch in loader for name in batch)
    assert seen == Counter(f"{n}.png" for n in range(IMAGES))


class _Names(KeypointDataset):
    """Gives the stored name of each sample's photo, by its pixels."""

    def __getitem__(self, key):
        photo = self._photos.draw(np.random.default_rng(key.index), key)
        return f"{photo.record.image_id}.png"


def test_order_depends_on_seed_and_epoch(whole_shards):
    first = names(islice(stream(whole_shards), 2 * IMAGES))
    assert names(islice(stream(whole_shards), 2 * IMAGES)) == first
    other = ShardStream(find_shards(str(whole_shards)), Reader(), seed=(1, 3, 0), buffer=5)
    assert names(islice(other, IMAGES)) != first[:IMAGES]
    assert first[:IMAGES] != first[IMAGES:]
    assert first[:IMAGES] != sorted(first[:IMAGES])


def test_stream_goes_on_in_the_epoch_where_it_was_left(whole_shards):
    whole = names(islice(stream(whole_shards), 2 * IMAGES))
    assert names(islice(stream(whole_shards, taken=IMAGES), IMAGES)) == whole[IMAGES:]
    rest = IMAGES - 18
    unshuffled = names(islice(stream(whole_shards, buffer=1), 2 * IMAGES))
    resumed = names(islice(stream(whole_shards, buffer=1, taken=18), rest + IMAGES))
    assert resumed == unshuffled[18:]


def test_sampler_tells_streams_how_much_of_each_set_was_taken(tiny_run, folder_set):
    config = tiny_run.tiny_config(*folder_set, batch_size=4, steps=100)
    sets = tuple(config.data.sets[0].model_copy(update={"name": name}) for name in "ab")
    phase = config.phases[0]
    phases = (
        phase.model_copy(update={"until": 0.5, "mixture": {"a": 3.0, "b": 1.0}}),
        phase.model_copy(update={"mixture": {"b": 1.0}}),
    )
    data = config.data.model_copy(update={"sets": sets})
    config = config.model_copy(update={"data": data, "phases": phases})
    place = next(iter(StepSampler(config, start=70, world=2)))[0].place
    assert place == Place(0, 2, (50 * 8 * 3 // 4, 50 * 8 // 4 + 20 * 8))


def test_fewer_shards_than_readers_are_read_in_parts(folder_set, tmp_path, caplog):
    write_shards(*folder_set, tmp_path / "one", ShardSettings(shard_size=100))
    readers = [stream(tmp_path / "one", Reader(index, 4)) for index in range(4)]
    parts = [names(islice(reader, IMAGES // 4)) for reader in readers]
    assert sorted(itertools.chain(*parts)) == sorted(f"{n}.png" for n in range(IMAGES))
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "1 shard for 4 loader processes" in record.getMessage()


def test_readers_keep_pace_where_shards_do_not_divide_evenly(whole_shards):
    readers = [stream(whole_shards, Reader(index, 3)) for index in range(3)]
    taken = Counter(part.shard.url for reader in readers for epoch in range(3) for part in reader.epoch_parts(epoch))
    assert set(taken.values()) == {3}
    shares = [sum(len(reader.epoch_parts(epoch)) for epoch in range(3)) for reader in readers]
    assert shares == [8, 8, 8]


def test_mixture_of_shards_and_folder_keeps_its_shares(tiny_run, folder_set, whole_shards):
    config = tiny_run.tiny_config(*folder_set)
    sets = (*config.data.sets, DatasetConfig(name="streamed", shards=str(whole_shards)))
    phase = config.phases[0].model_copy(update={"mixture": {"tiny": 0.25, "streamed": 0.75}})
    data = config.data.model_copy(update={"sets": sets})
    config = config.model_copy(update={"data": data, "phases": (phase,)})
    reader = PhotoReader(config)
    alone = PhotoReader(tiny_run.tiny_config(*folder_set))
    drawn = Counter()
    for index in range(400):
        photo = reader.draw(np.random.default_rng(index), SampleKey(index, 64, 0))
        drawn[photo.keypoint_set.config.name] += 1
    assert abs(drawn["streamed"] - 300) < 4 * np.sqrt(400 * 0.75 * 0.25)
    assert alone.draw(np.random.default_rng(0), SampleKey(0, 64, 0)).keypoint_set.config.name == "tiny"


def test_pattern_takes_what_it_names_and_its_counts_from_the_index(whole_shards):
    found = find_shards(f"{whole_shards}/set-{{000002..000004}}.tar")
    assert [shard.url for shard in found.shards] == [str(whole_shards / f"set-00000{n}.tar") for n in (2, 3, 4)]
    assert found.images == 9
    assert find_shards(str(whole_shards / INDEX_FILE)) == find_shards(str(whole_shards))


def test_shards_without_index_are_read_by_pattern_alone(shards, caplog):
    (shards / INDEX_FILE).unlink()
    with pytest.raises(DataError, match=r"index\.json"):
        find_shards(str(shards))
    pattern = f"{shards}/set-{{000000..000007}}.tar"
    assert find_shards(pattern).images is None
    assert sorted(names(islice(stream(pattern), IMAGES))) == sorted(f"{n}.png" for n in range(IMAGES))
    assert "no index" in caplog.text
    with pytest.raises(DataError, match=r"none of the 2 shards that .* names exists, such as .*other-1\.tar; check"):
        find_shards(f"{shards}/other-{{1..2}}.tar")


@pytest.mark.parametrize(("name", "kind"), [("absent", "folder"), ("absent.tar", "tar file")])
def test_missing_source_of_shards_is_named_as_what_it_was_given(tmp_path, name, kind):
    with pytest.raises(DataError, match=rf"there is no {kind} of shards .*{name}; check shards in data\.sets"):
        find_shards(str(tmp_path / name))


def test_index_of_something_else_is_named_in_one_line(shards):
    (shards / INDEX_FILE).write_text('{"shards": []}')
    with pytest.raises(DataError, match="is no index as") as caught:
        find_shards(str(shards))
    assert "\n" not in str(caught.value)


def test_pipe_of_a_url_is_opened_by_webdataset(whole_shards):
    url = f"pipe:cat {whole_shards}/set-000001.tar"
    expected = names(islice(stream(f"{whole_shards}/set-000001.tar"), 3))
    assert sorted(names(islice(stream(url), 3))) == sorted(expected)


@pytest.mark.parametrize("fault", ["cut off in a member", "cut off in a header", "no tar", "missing"])
def test_spoiled_shard_is_passed_over_with_one_warning(shards, caplog, fault):
    spoiled = shards / "set-000004.tar"
    with tarfile.open(spoiled) as archive:
        middle = archive.getmembers()[3]
    if fault == "missing":
        spoiled.unlink()
    elif fault == "no tar":
        spoiled.write_bytes(b"no tar file at all" * 100)
    else:
        spoil(spoiled, middle.offset_data + 40 if fault == "cut off in a member" else middle.offset + 100)
    samples = names(islice(stream(shards), 3 * IMAGES))
    counts = Counter(samples)
    whole = sorted(counts.values())[-(IMAGES - 3) :]
    assert min(whole) >= 3
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "set-000004.tar" in warnings[0]


def test_spoiled_member_is_skipped_and_counted(tiny_run, folder_set, shards, caplog):
    target = shards / "set-000002.tar"
    with tarfile.open(target) as archive:
        member = next(member for member in archive.getmembers() if member.name.endswith(".png"))
    data = bytearray(target.read_bytes())
    data[member.offset_data : member.offset_data + 8] = b"nothing!"
    target.write_bytes(bytes(data))
    reader = PhotoReader(shard_config(tiny_run, folder_set, shards))
    caplog.clear()
    drawn = [reader.draw(np.random.default_rng(0), SampleKey(0, 64, 0)).record.image_id for _ in range(2 * IMAGES)]
    assert len(set(drawn)) == IMAGES - 1
    assert reader.skipped == 1
    assert caplog.text.count(member.name) == 1


def test_shards_that_cannot_be_read_at_all_are_an_error(shards):
    for path in shards.glob("*.tar"):
        spoil(path, 100)
    with pytest.raises(DataError, match=r"in a row|no samples"):
        next(stream(shards))


def test_set_of_shards_without_the_persons_that_are_asked_for_is_an_error(whole_shards):
    with pytest.raises(DataError, match="no samples"):
        next(stream(whole_shards, accepts=lambda annotation: False))


def test_only_with_persons_leaves_out_photos_without(tiny_run, folder_set, whole_shards):
    config = shard_config(tiny_run, folder_set, whole_shards)
    entry = config.data.sets[0].model_copy(update={"only_with_persons": True})
    config = config.model_copy(update={"data": config.data.model_copy(update={"sets": (entry,)})})
    reader = PhotoReader(config)
    drawn = {reader.draw(np.random.default_rng(0), SampleKey(0, 64, 0)).record.image_id for _ in range(IMAGES - 1)}
    assert drawn == set(range(IMAGES)) - {3}


def test_other_keypoints_than_the_models_are_an_error(tiny_run, folder_set, shards):
    index = json.loads((shards / INDEX_FILE).read_text())
    index["categories"][0]["keypoints"] = ["left_flipper", "right_flipper"]
    (shards / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(DataError, match="keypoints"):
        KeypointDataset(shard_config(tiny_run, folder_set, shards))


@pytest.mark.parametrize(
    "source",
    [
        {"annotations": "a.json", "images": "images", "shards": "shards"},
        {"annotations": "a.json"},
        {"images": "images", "shards": "shards"},
        {},
    ],
)
def test_set_is_a_folder_or_shards(source):
    with pytest.raises(ValidationError, match="takes either"):
        DatasetConfig.model_validate({"name": "set", **source})


def test_run_from_shards_trains_and_resumes(tiny_run, folder_set, whole_shards, tmp_path):
    config = shard_config(tiny_run, folder_set, whole_shards, steps=4)
    fit(config, tmp_path / "run", accelerator="cpu", stop_after=2)
    weights = fit(config, tmp_path / "run", accelerator="cpu")
    assert weights.exists()
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert state["step"] == 4


def test_loader_processes_stream_the_same_again(tiny_run, folder_set, whole_shards):
    config = shard_config(tiny_run, folder_set, whole_shards, batch_size=2, steps=4)
    runs = []
    for _ in range(2):
        loader = DataLoader(
            KeypointDataset(config), batch_sampler=StepSampler(config, start=1), num_workers=2, collate_fn=collate
        )
        runs.append([batch.images for batch in loader])
    assert all(torch.equal(first, second) for first, second in zip(*runs, strict=True))


@pytest.mark.parametrize("images", ["nowhere", "empty"])
def test_folder_without_the_images_leaves_no_shards(tiny_set, tmp_path, images):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=images):
        write_shards(tiny_set[0], tmp_path / images, tmp_path / "shards", ShardSettings(shard_size=4))
    assert [path.name for path in (tmp_path / "shards").glob("*")] == []


def test_dry_run_counts_what_is_in_shards(tiny_set, tmp_path):
    write_shards(*tiny_set, tmp_path / "shards", ShardSettings(shard_size=4))
    persons = len(json.loads(tiny_set[0].read_text())["annotations"])
    images = len(json.loads(tiny_set[0].read_text())["images"])
    assert _streamed(str(tmp_path / "shards")) == f"{images} images, {persons} annotations in {-(-images // 4)} shards,"
    (tmp_path / "shards" / INDEX_FILE).unlink()
    pattern = str(tmp_path / "shards" / "shards-{000000..000001}.tar")
    assert _streamed(pattern) == "images without a count in 2 shards,"
