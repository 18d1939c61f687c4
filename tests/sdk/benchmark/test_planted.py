"""Planted people: exactly as many candidates as asked for, where they were planted."""

from dataclasses import replace

import numpy as np
import pytest

from posesdk.benchmark.planted import PlantedTrunk, mirror_maps, place_people, plant_people
from posesdk.bundle import open_bundle
from posesdk.decode import average_flip, decode_center_offset
from posesdk.fused import FusedPipeline
from posesdk.pipeline import open_pipeline
from posesdk.shipped import find_bundle
from posesdk.spec import ModelSpec
from posesdk.variants import select_variant


@pytest.fixture(scope="module")
def pipeline(tiny_folder):
    bundle = open_bundle(tiny_folder)
    opened = open_pipeline(bundle, select_variant(bundle.manifest, "onnxruntime")[0], threads=1)
    yield opened
    opened.close()


class ConstantTrunk:
    """A trunk of any model that sees the same noise everywhere."""

    inputs = outputs = ()

    def __init__(self, spec: ModelSpec, map_size: tuple[int, int]):
        random = np.random.default_rng(1)
        count, centers = spec.keypoint_count, spec.center_count
        shapes = {"heatmaps": count + centers, "offsets": 2 * count * centers}
        self.maps = {name: random.random((1, channels, *map_size), np.float32) for name, channels in shapes.items()}

    def run(self, feeds):
        return {name: maps.repeat(len(feeds["image"]), axis=0) for name, maps in self.maps.items()}

    def close(self):
        """Holds nothing."""


def planted_maps(spec: ModelSpec, count: int, map_size=(48, 80), seed: int = 0, batch: int = 1):
    trunk = PlantedTrunk(ConstantTrunk(spec, map_size), spec, count, seed=seed)
    return trunk.run({"image": np.zeros((batch, 4 * map_size[0], 4 * map_size[1], 3), np.uint8)})


@pytest.mark.parametrize("frame", ["consistent", "published"])
@pytest.mark.parametrize("centers", ["single", "dual"])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 30, 60])
def test_every_center_of_every_planted_person_is_a_candidate_and_nothing_else_is(count, centers, frame):
    for seed in range(3):
        spec = ModelSpec(name="any", centers=centers, frame=frame)
        spec = spec.model_copy(update={"decode": spec.decode.model_copy(update={"max_people": 60})})
        for map_size in ((48, 80), (64, 64), (96, 40)):
            maps = planted_maps(spec, count, map_size, seed)
            found = decode_center_offset(maps["heatmaps"][0], maps["offsets"][0], spec)
            assert sorted(found.kinds) == sorted(list(range(spec.center_count)) * count)


def test_candidates_are_the_initial_poses_that_were_placed():
    spec = ModelSpec(name="any")
    maps = planted_maps(spec, 9, seed=3)
    people = place_people(9, (192, 320), spec, seed=3)
    found = decode_center_offset(maps["heatmaps"][0], maps["offsets"][0], spec)
    distances = np.linalg.norm(found.keypoints[:, None] - people.initial[None], axis=-1).max(axis=-1)  # (9, 9)
    assert sorted(distances.argmin(axis=1)) == list(range(9))
    assert distances.min(axis=1).max() < 1e-3
    assert np.abs(people.initial - people.keypoints).max() > 0.5


def test_the_whole_pipeline_finds_the_planted_people_whatever_is_in_the_picture(pipeline, spots):
    image = spots([(50, 60), (140, 70)], size=(256, 320))
    for count in (0, 1, 4, 12):
        planted = plant_people(pipeline, count, seed=5)
        first, second = (planted.run(image, pipeline.spec.decode.score_threshold) for _ in range(2))
        assert len(first.scores) == count
        assert np.array_equal(first.keypoints, second.keypoints)


@pytest.mark.parametrize("name", ["default", "dac-nano"])
def test_shipped_models_work_on_as_many_candidates_as_were_planted(name, spots):
    bundle = open_bundle(find_bundle(name))
    pipeline = open_pipeline(bundle, select_variant(bundle.manifest, "onnxruntime")[0], threads=1)
    image = spots([(50, 60)], size=(240, 320))
    for count in (1, 6):
        planted = plant_people(pipeline, count)
        _, initial, outputs = planted.candidates(image)
        assert len(initial) == count * bundle.spec.center_count
        assert all(len(values) == len(initial) for values in outputs.values())
        assert 0 < len(planted.run(image).scores) <= len(initial)
    pipeline.close()


def test_more_people_than_the_model_takes_are_taken(pipeline, spots):
    few = pipeline.adjusted(pipeline.spec.decode.model_copy(update={"max_people": 2}))
    assert len(plant_people(few, 6).run(spots([(50, 60)], size=(256, 320))).scores) == 6


def test_the_same_seed_gives_the_same_people_and_another_one_others():
    spec = ModelSpec(name="any")
    first, same, other = (place_people(5, (192, 320), spec, seed=seed).keypoints for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_the_flip_average_of_planted_maps_is_the_planted_maps():
    spec = ModelSpec(name="any", centers="dual")
    maps = planted_maps(spec, 6)
    own = maps["heatmaps"][0], maps["offsets"][0]
    both = [np.stack(pair) for pair in zip(own, mirror_maps(*own, spec), strict=True)]
    for averaged, wanted in zip(average_flip(*both, spec.skeleton), own, strict=True):
        np.testing.assert_allclose(averaged, wanted, atol=1e-5)


def test_each_image_of_a_batch_has_the_people_and_mirror_images_follow(pipeline, spots):
    flipped = pipeline.adjusted(pipeline.spec.decode.model_copy(update={"flip_test": True}))
    image = spots([(50, 60)], size=(256, 320))
    for one in (pipeline, flipped):
        found = plant_people(one, 3).run_batch([image, image], pipeline.spec.decode.score_threshold)
        assert [len(estimate.scores) for estimate in found] == [3, 3]


def test_maps_without_room_for_so_many_are_refused():
    with pytest.raises(ValueError, match="no room for 400 people"):
        place_people(400, (192, 320), ModelSpec(name="any"))


def test_nobody_can_be_planted_into_a_fused_graph(pipeline):
    class Fused:
        outputs = replace_shape(pipeline.trunk.outputs)

    fused = FusedPipeline(pipeline.spec, Fused(), None, pipeline.spec)
    with pytest.raises(ValueError, match="fused"):
        plant_people(fused, 3)


def replace_shape(outputs):
    """Places for any number of candidates."""
    return tuple(replace(port, shape=(None, *port.shape[1:])) for port in outputs)
