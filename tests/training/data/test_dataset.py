import json
import logging

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import DataError
from posesdk_training.config import TrainConfig
from posesdk_training.data.batches import SampleKey, StepSampler, collate
from posesdk_training.data.dataset import KeypointDataset

SIZE = 128
SIDE = 200
"""Photos are 200 px squares; without augmentation a crop is such a photo at 0.64 of its size."""


def annotation(number, image_id, *, x0=40.0, y0=40.0, x1=120.0, y1=140.0, labelled=True, **changes):
    rng = np.random.default_rng(number)
    points = np.zeros((17, 3))
    if labelled:
        points = np.stack([rng.uniform(x0, x1, 17), rng.uniform(y0, y1, 17), np.full(17, 2.0)], axis=1)
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": 17 * labelled,
        "keypoints": points.ravel().tolist(),
        "area": (x1 - x0) * (y1 - y0),
        "bbox": [x0, y0, x1 - x0, y1 - y0],
    } | changes


@pytest.fixture
def make(tmp_path):
    """Writes a data set of photos 1..n and gives a configuration for it; `plain` crops without augmentation."""

    def write(annotations, *, photos=3, entry=None, broken=(), **changes):
        for number in range(1, photos + 1):
            image = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
            path = tmp_path / f"{number}.png"
            cv2.imwrite(str(path), image)
            if number in broken:
                path.write_bytes(b"no image")
        tree = {"images": [{"id": n, "file_name": f"{n}.png"} for n in range(1, photos + 1)], "categories": []}
        (tmp_path / "truth.json").write_text(json.dumps(tree | {"annotations": annotations}))
        plain = {
            "crop": {"kind": "image", "scale": [1.0, 1.0], "shift": 0.0},
            "rotation": 0,
            "flip_probability": 0.0,
        }
        source = {"name": "set", "annotations": tmp_path / "truth.json", "images": tmp_path} | (entry or {})
        return TrainConfig.model_validate(
            {
                "name": "test",
                "model": ModelSpec(name="tiny"),
                "data": {"sets": [source]},
                "augment": plain,
                "phases": [{"mixture": {"set": 1.0}, "sizes": {SIZE: 1.0}}],
                "steps": 10,
                "batch_size": 2,
            }
            | changes
        )

    return write


def at(number):
    return SampleKey(number, SIZE, 0)


def equal(first, second):
    return all(np.array_equal(first[name], second[name]) for name in first)


AUGMENTED = {"augment": {"crop": {"kind": "person"}, "photometric": True}}


def test_sample_depends_on_its_number_alone(make):
    config = make([annotation(n, n) for n in (1, 2, 3)], **AUGMENTED)
    forward = {n: KeypointDataset(config)[at(n)] for n in range(6)}
    dataset = KeypointDataset(config)
    backward = {n: dataset[at(n)] for n in reversed(range(6))}
    assert all(equal(forward[n], backward[n]) for n in range(6))
    assert not equal(forward[0], forward[1])
    other = KeypointDataset(config.model_copy(update={"seed": 1}))
    assert not equal(forward[0], other[at(0)])


def test_loader_processes_give_what_one_process_gives(make):
    config = make([annotation(n, n) for n in (1, 2, 3)], **AUGMENTED)
    batches = []
    for workers in (0, 2):
        loader = DataLoader(
            KeypointDataset(config), batch_sampler=StepSampler(config, start=7), num_workers=workers, collate_fn=collate
        )
        batches.append(list(loader))
    assert len(batches[0]) == 3
    for first, second in zip(*batches, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.offsets, second.offsets)


def test_ranks_share_the_samples_of_a_step_and_a_resumed_run_goes_on(make):
    config = make([annotation(1, 1)])
    whole = list(StepSampler(config))
    assert len(whole) == 10
    assert list(StepSampler(config, start=4)) == whole[4:]
    ranks = [list(StepSampler(config, rank=rank, world=2)) for rank in (0, 1)]
    numbers = [key.index for step in zip(*ranks, strict=True) for batch in step for key in batch]
    assert numbers == list(range(40))


def test_keypoints_of_the_sample_are_those_of_the_crop(make):
    config = make([annotation(1, 1)], photos=1)
    sample = KeypointDataset(config)[at(0)]
    points = np.array(annotation(1, 1)["keypoints"]).reshape(17, 3)[:, :2]
    scale = SIZE / SIDE
    expected = scale * (points - (SIDE - 1) / 2) + (SIZE - 1) / 2
    np.testing.assert_allclose(sample["keypoints"][0, :, :2], expected, atol=1e-3)
    assert sample["areas"][0] == pytest.approx(80 * 100 * scale**2, rel=1e-5)
    rows, columns = np.unravel_index(sample["heatmaps"].reshape(18, -1).argmax(1)[:17], (32, 32))
    assert np.abs(4 * columns + 1.5 - expected[:, 0]).max() <= 2.01
    assert np.abs(4 * rows + 1.5 - expected[:, 1]).max() <= 2.01


def masked_box(sample):
    rows, columns = np.nonzero(sample["heatmap_weights"][0] == 0)
    return (columns.min(), rows.min(), columns.max(), rows.max())


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of pycocotools 2.0.11
@pytest.mark.parametrize(
    "region",
    [
        {},
        {"segmentation": [[100, 100, 180, 100, 180, 160, 100, 160]]},
        {"iscrowd": 1, "segmentation": {"size": [SIDE, SIDE], "counts": []}},
    ],
    ids=["box", "polygon", "run lengths"],
)
def test_person_without_keypoints_is_masked(make, region):
    if "iscrowd" in region:
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        pixels[100:160, 100:180] = 1
        flat = pixels.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        region["segmentation"]["counts"] = np.diff([0, *edges, flat.size]).tolist()
    nobody = annotation(2, 1, x0=100.0, y0=100.0, x1=180.0, y1=160.0, labelled=False, **region)
    sample = KeypointDataset(make([annotation(1, 1), nobody], photos=1))[at(0)]
    scale = SIZE / SIDE
    expected = ((np.array([100, 100, 179, 159]) - 99.5) * scale + 63.5 - 1.5) / 4
    np.testing.assert_allclose(masked_box(sample), expected, atol=1.0)
    assert len(sample["keypoints"]) == 1


def test_crowd_with_keypoints_is_masked_and_not_adapted(make):
    config = make([annotation(1, 1), annotation(2, 1, iscrowd=1)], photos=1)
    sample = KeypointDataset(config)[at(0)]
    assert len(sample["keypoints"]) == 1
    assert (sample["heatmap_weights"] == 0).any()


def test_keypoints_that_a_set_never_labels_are_masked(make):
    names = ModelSpec(name="any").skeleton.keypoints[5:]
    config = make([annotation(1, 1)], photos=1, entry={"annotated_keypoints": names})
    weights = KeypointDataset(config)[at(0)]["heatmap_weights"]
    assert weights.shape[0] == 18
    assert not weights[:5].any()
    assert weights[5:].all()


def test_only_the_surroundings_of_persons_are_supervised_where_others_are_unlabelled(make):
    config = make([annotation(1, 1)], photos=1, entry={"supervised_window": 0.1})
    weights = KeypointDataset(config)[at(0)]["heatmap_weights"][0]
    rows, columns = np.nonzero(weights)
    box = (np.array([40, 40, 120, 140]) - 99.5) * SIZE / SIDE + 63.5
    margin = 0.1 * 100 * SIZE / SIDE
    expected = [*(box[:2] - margin) / 4, *(box[2:] + margin) / 4]
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max(), rows.max()], expected, atol=1.0)


def test_keypoints_outside_the_crop_count_as_unlabelled_for_the_adaptation(make):
    config = make([annotation(1, 1, x0=-60.0, x1=90.0)], photos=1)
    sample = KeypointDataset(config)[at(0)]
    points = sample["keypoints"][0]
    outside = points[:, 0] < 0
    assert outside.any()
    assert not points[outside, 2].any()
    assert points[~outside, 2].all()


def test_photo_without_people_gives_an_empty_sample(make):
    sample = KeypointDataset(make([], photos=1))[at(0)]
    assert sample["keypoints"].shape == (0, 17, 3)
    assert not sample["heatmaps"].any()
    assert not sample["offset_weights"].any()


def test_unreadable_image_is_skipped_with_one_warning(make, caplog, capfd):
    config = make([annotation(n, n) for n in (1, 2, 3)], broken=(2,))
    dataset = KeypointDataset(config)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="posesdk_training"):
        samples = [dataset[at(number)] for number in range(12)]
    assert len(samples) == 12
    (record,) = caplog.records
    assert "2.png" in record.getMessage()
    assert "imread" not in capfd.readouterr().err  # OpenCV keeps quiet


def test_unreadable_image_is_told_once_by_all_loader_processes(make, capfd):
    config = make([annotation(n, n) for n in (1, 2, 3)], broken=(2,))
    dataset = KeypointDataset(config)
    capfd.readouterr()
    loader = DataLoader(
        dataset, batch_sampler=StepSampler(config), num_workers=2, collate_fn=collate, worker_init_fn=_log_to_stderr
    )
    assert len(list(loader)) == 10
    assert capfd.readouterr().err.count("2.png") == 1
    assert dataset.skipped == 1


def _log_to_stderr(_):
    logging.getLogger("posesdk_training").handlers[:] = [logging.StreamHandler()]


def test_missing_image_is_skipped(make, tmp_path):
    config = make([annotation(n, n) for n in (1, 2, 3)])
    (tmp_path / "3.png").unlink()
    dataset = KeypointDataset(config)
    assert {dataset[at(number)]["name"] for number in range(12)} == {"set/1.png", "set/2.png"}


@pytest.mark.parametrize(("images", "workers"), [(2, 0), (1, 0), (2, 2)])
def test_cached_images_are_bounded_over_all_loader_processes(make, tmp_path, images, workers):
    room = images * SIDE * SIDE * 3 / 2**30
    config = make([annotation(n, n) for n in (1, 2, 3)])
    data = config.data.model_copy(update={"cache_images": True, "cache_gib": room, "workers": workers})
    dataset = KeypointDataset(config.model_copy(update={"data": data}))
    first = [dataset[at(number)] for number in range(6)]
    for number in (1, 2, 3):
        (tmp_path / f"{number}.png").write_bytes(b"no image any more")
    kept = {dataset[at(number)]["name"] for number in range(6)}
    assert len({sample["name"] for sample in first}) == 3
    assert len(kept) == images // max(1, workers)


def test_set_of_unreadable_images_is_an_error(make):
    with pytest.raises(DataError, match="could not be read"):
        KeypointDataset(make([annotation(1, 1)], photos=1, broken=(1,)))[at(0)]


def test_set_without_images_is_an_error(make):
    with pytest.raises(DataError, match="no images"):
        KeypointDataset(make([], photos=0))


def test_collate_widens_weight_maps_of_one_channel(make):
    sample = KeypointDataset(make([annotation(1, 1)], photos=1))[at(0)]
    wide = sample | {"heatmap_weights": np.repeat(sample["heatmap_weights"], 18, axis=0)}
    batch = collate([sample, wide])
    assert batch.heatmap_weights.shape == (2, 18, 32, 32)
    assert torch.equal(batch.heatmap_weights[0], batch.heatmap_weights[1])
    assert batch.images.shape == (2, 3, SIZE, SIZE)
    assert [len(points) for points in batch.keypoints] == [1, 1]


def test_batch_moves_to_a_device_whole(make):
    sample = KeypointDataset(make([annotation(1, 1)], photos=1))[at(0)]
    batch = collate([sample]).to(torch.device("meta"))
    assert batch.names == ("set/1.png",)
    for value in (value for name, value in vars(batch).items() if name not in ("names", "views")):
        assert all(tensor.is_meta for tensor in (value if isinstance(value, list) else [value]))


def test_person_without_keypoints_is_masked_and_centered_on_the_box(tiny_run, tmp_path):
    annotations, images = tiny_run.write_tiny_set(tmp_path, images=1)
    tree = json.loads(annotations.read_text())
    tree["annotations"][0] |= {"num_keypoints": 0, "keypoints": [0] * 51, "bbox": [20, 30, 40, 50], "area": 2000}
    annotations.write_text(json.dumps(tree))
    targets = {"min_center_area": 0, "background_weight": 1.0}
    augment = {"crop": {"kind": "image", "scale": (1, 1), "shift": 0}, "rotation": 0, "flip_probability": 0}
    config = tiny_run.tiny_config(annotations, images, targets=targets, augment=augment)
    sample = KeypointDataset(config)[SampleKey(0, 96, 0)]
    row, column = np.unravel_index(sample["heatmaps"][17].argmax(), (24, 24))
    assert (column, row) == (round((40 - 1.5) / 4), round((55 - 1.5) / 4))
    assert not sample["heatmaps"][:17].any()
    assert sample["heatmap_weights"][0, 14, 10] == 0
    assert sample["heatmap_weights"][0, 1, 1] == 1
    assert len(sample["keypoints"]) == 0
