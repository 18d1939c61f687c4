"""Both methods through a whole pipeline, from images to persons, on graphs that are written by hand in numpy."""

from pathlib import Path

import numpy as np
import pytest

from posesdk.adapt import LocalGlobalAdaptation
from posesdk.dual_centers import DualCenters
from posesdk.graphs import check_graphs
from posesdk.methods import method_of, trunk_outputs
from posesdk.pipeline import Pipeline
from posesdk.skeleton import Skeleton
from posesdk.spec import AdaptationSpec, DecodeSpec, HeadSpec, HRNetSpec, InputSpec, ModelSpec, PoseNetsSpec
from posesdk_runtimes.base import TensorSpec
from posesdk_runtimes.errors import BundleError, RuntimeFault

THREE = Skeleton(name="three", keypoints=("top", "left", "right"), flip_pairs=((1, 2),), sigmas=(0.03, 0.05, 0.05))
SHAPE = np.array([[0, -12], [8, 12], [-8, 12]], np.float32)
"""Net px from the body center; the head center is 12 px above it. Mirrored it is itself, sides exchanged."""
SCALE = np.sqrt(16 * 24)
WIDE, HIGH = (64, 128), (128, 64)
NETS_OFF = {"similarity": False, "confidence": False, "refinement": False}
BODY = np.array([[17.5, 33.5], [81.5, 33.5]])
"""Two people's body centers, in the middle of cells."""


def _spec(method="dac", centers="dual", *, nets=(), **decode):
    return ModelSpec(
        name="tiny",
        method=method,
        centers=centers,
        skeleton=THREE,
        input=InputSpec(side=64, multiple=64),
        backbone=HRNetSpec(channels=(3, 3, 3, 3)),
        heads=HeadSpec(embedding=3),
        decode=DecodeSpec(**{"center_threshold": 0.1, **decode}),
        adaptation=AdaptationSpec(local_size=3, global_size=5, reweigh_sigma=None),
        pose_nets=PoseNetsSpec(**{"patch": 3, "embedding": 3, **dict(nets)}),
    )


class Trunk:
    """Red light is a head's center, green a body's; means of the light over cells are features and heatmaps."""

    def __init__(self, spec, batch=None):
        self.spec, self.batches = spec, []
        self.inputs = (TensorSpec("image", (batch, None, None, 3), np.dtype(np.uint8)),)
        shapes = trunk_outputs(spec)
        self.outputs = tuple(TensorSpec(name, shape, np.dtype(np.float32)) for name, shape in shapes.items())

    def run(self, feeds):
        image = feeds["image"]
        self.batches.append(image.shape)
        light = np.float32(image) / 255
        levels = [_pooled(light, 4 << r) for r in range(4)]
        red, green = levels[0][..., 0], levels[0][..., 1]
        centers = [red, green][-self.spec.center_count :]
        # What lies above and below a center is a keypoint, too: all of one person's keypoints are lit.
        glow = np.float32(0.5) * (red + green + levels[0][..., 2])
        offsets = [-SHAPE / 4 - [0, 12 / 4], -SHAPE / 4][-self.spec.center_count :]
        channels = np.concatenate([np.ravel(one) for one in offsets]).astype(np.float32)
        maps = {
            "heatmaps": np.stack([glow, glow, glow, *centers], axis=1),
            "offsets": np.broadcast_to(channels[:, None, None], (len(image), len(channels), *red.shape[1:])).copy(),
            "embedding": levels[0],
        }
        maps |= {f"level{r}": level for r, level in enumerate(levels)}
        return {port.name: maps[port.name] for port in self.outputs}

    def close(self):
        pass


def _pooled(light, stride):
    batch, height, width, _ = light.shape
    return light.reshape(batch, height // stride, stride, width // stride, stride, 3).mean(axis=(2, 4))


class PoseGraph:
    """Confidence is the mean light at a pose, its looks are its color, and every keypoint moves to the right."""

    def __init__(self, spec, batch=None):
        method = method_of(spec)
        self.spec, self.persons = spec, []
        self.inputs = (TensorSpec("context", (batch, *method.context_shape(spec)[1:]), np.dtype(np.float32)),)
        self.outputs = tuple(
            TensorSpec(name, shape, np.dtype(np.float32)) for name, shape in method.adapt_outputs(spec).items()
        )

    def run(self, feeds):
        context = feeds["context"]
        self.persons.append(len(context))
        if self.spec.method == "logocap":
            kernel = np.zeros((len(context), 3, 3, 3), np.float32)
            kernel[:, :, 1, 1] = 9
            return {"attraction_maps": kernel}
        color = context[:, :, 9:12].mean(axis=1)  # of the coarsest level: the whole person
        given = {
            "similarity": color / np.linalg.norm(color, axis=1, keepdims=True).clip(1e-6),
            "confidence": context[:, :, :3].mean(axis=(1, 2)),
            "residuals": np.tile(np.float32([0.5, 0]), (len(context), 3, 1)),
        }
        return {port.name: given[port.name] for port in self.outputs}

    def close(self):
        pass


def _pipeline(spec, batch=None):
    adapt = PoseGraph(spec, batch) if method_of(spec).needs_adapt(spec) else None
    return Pipeline(spec, Trunk(spec, batch), adapt)


def _picture(bodies, size=WIDE):
    """A BGR picture with the lights of people whose body centers (x, y) lie a little off the middle of cells."""
    ys, xs = np.mgrid[: size[0], : size[1]]
    light = np.zeros((*size, 3))
    for x, y in bodies:
        for channel, center_y, peak in ((2, y - 12, 240), (1, y, 200), (0, y - 6, 60)):
            distance = (xs - x - 0.3) ** 2 + (ys - center_y - 0.3) ** 2
            light[..., channel] += peak * np.exp(-distance / (2 * 5.0**2))
    return light.clip(0, 255).round().astype(np.uint8)


def _sorted(keypoints):
    return keypoints[np.argsort(keypoints[:, 0, 0])]


@pytest.mark.parametrize("flip_test", [False, True])
def test_a_person_seen_from_both_centers_is_found_once_and_refined(flip_test):
    pipeline = _pipeline(_spec(flip_test=flip_test))
    found = pipeline.run(_picture(BODY))
    assert pipeline.adapt.persons == [4]
    expected = BODY[:, None] + SHAPE + [0.05 * SCALE, 0]
    np.testing.assert_allclose(_sorted(found.keypoints), expected, rtol=0, atol=1e-3)
    assert ((found.scores > 0.1) & (found.scores < 1)).all()


def test_score_is_the_confidence_that_the_graph_gives():
    picture = _picture(BODY[:1])
    found = _pipeline(_spec()).run(picture)
    # Net px are pixels of the picture, so the light of a keypoint is bilinear between means of 4 x 4 px.
    cells = _pooled(np.float32(picture[None, ..., ::-1]) / 255, 4)[0]
    light = []
    for x, y in BODY[0] + SHAPE:
        u, v = (x - 1.5) / 4, (y - 1.5) / 4
        assert u == int(u)
        assert v == int(v)
        light.append(cells[int(v), int(u)])
    assert found.scores.tolist() == pytest.approx([np.mean(light)], rel=1e-5)
    assert (found.keypoint_scores <= found.scores[:, None]).all()


class OneSided(Trunk):
    """Sees nothing in mirror images but keypoints, and those twice as well."""

    def run(self, feeds):
        maps = super().run(feeds)
        mirrored = slice(len(feeds["image"]) // 2, None)
        for name in ("level0", "level1", "level2", "level3"):
            maps[name][mirrored] = 0
        maps["heatmaps"][mirrored, :3] *= 2
        return maps


class Watching(PoseGraph):
    """Keeps what it is given."""

    def run(self, feeds):
        self.seen = feeds["context"]
        return super().run(feeds)


def test_pose_networks_see_the_image_itself_and_keypoints_score_by_both():
    plain, flipped = _spec(), _spec(flip_test=True)
    graphs = [Watching(plain), Watching(flipped)]
    one = Pipeline(plain, Trunk(plain), graphs[0]).run(_picture(BODY))
    both = Pipeline(flipped, OneSided(flipped), graphs[1]).run(_picture(BODY))
    np.testing.assert_allclose(graphs[1].seen, graphs[0].seen, rtol=0, atol=1e-5)
    np.testing.assert_allclose(both.scores, one.scores, rtol=1e-5)
    np.testing.assert_allclose(both.keypoint_scores, 1.5 * one.keypoint_scores, rtol=1e-4)


@pytest.mark.parametrize("batch", [None, 1])
@pytest.mark.parametrize("flip_test", [False, True])
def test_several_images_give_what_each_gives_alone(flip_test, batch):
    pictures = [_picture(BODY), _picture([]), _picture([(29.5, 61.5)], HIGH), _picture(BODY[1:])]
    pipeline = _pipeline(_spec(flip_test=flip_test), batch)
    together = pipeline.run_batch(pictures)
    if batch is None:
        assert [shape[0] for shape in pipeline.trunk.batches] == ([6, 2] if flip_test else [3, 1])
        assert pipeline.adapt.persons == [8]
    for one, picture in zip(together, pictures, strict=True):
        alone = _pipeline(_spec(flip_test=flip_test)).run(picture)
        np.testing.assert_allclose(one.keypoints, alone.keypoints, rtol=0, atol=1e-4)
        np.testing.assert_allclose(one.keypoint_scores, alone.keypoint_scores, rtol=0, atol=1e-6)
        np.testing.assert_allclose(one.scores, alone.scores, rtol=0, atol=1e-6)
    assert [len(one.scores) for one in together] == [2, 0, 1, 1]


def test_without_pose_networks_no_second_graph_is_needed():
    pipeline = _pipeline(_spec(nets=NETS_OFF))
    assert pipeline.adapt is None
    found = pipeline.run(_picture(BODY))
    np.testing.assert_allclose(_sorted(found.keypoints), BODY[:, None] + SHAPE, rtol=0, atol=1e-3)


def test_a_second_graph_that_is_not_needed_does_not_run():
    spec = _spec(nets=NETS_OFF)
    graph = PoseGraph(_spec())
    assert len(Pipeline(spec, Trunk(spec), graph).run(_picture(BODY)).scores) == 2
    assert graph.persons == []


def test_one_center_is_enough_for_pose_networks():
    pipeline = _pipeline(_spec(centers="single"))
    found = pipeline.run(_picture(BODY))
    assert pipeline.adapt.persons == [2]
    expected = BODY[:, None] + SHAPE + [0.05 * SCALE, 0]
    np.testing.assert_allclose(_sorted(found.keypoints), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("level", ["full", "partial", "none"])
def test_adaptation_finds_a_person_seen_from_both_centers_once(level, flip_test):
    spec = _spec("logocap", flip_test=flip_test)
    spec = spec.model_copy(update={"adaptation": spec.adaptation.model_copy(update={"level": level})})
    pipeline = _pipeline(spec)
    found = pipeline.run(_picture(BODY))
    assert pipeline.adapt is None or pipeline.adapt.persons == [4]
    expected = BODY[:, None] + SHAPE
    np.testing.assert_allclose(_sorted(found.keypoints), expected, rtol=0, atol=2 * 2**0.5)
    np.testing.assert_allclose(found.scores, found.keypoint_scores.mean(axis=1), rtol=1e-6)


def test_both_centers_give_max_people_candidates_to_the_adaptation():
    pipeline = _pipeline(_spec("logocap", max_people=1))
    found = pipeline.run(_picture(BODY))
    assert pipeline.adapt.persons == [2]
    assert len(found.scores) == 1


def test_pose_networks_choose_the_one_person_asked_for_among_the_candidates_of_all():
    """The strongest centers need not be those of the most confident pose."""
    pipeline = _pipeline(_spec("dac", max_people=1))
    found = pipeline.run(_picture(BODY))
    assert pipeline.adapt.persons == [4]
    np.testing.assert_array_equal(found.scores, _pipeline(_spec("dac")).run(_picture(BODY)).scores[:1])


def test_candidates_are_bounded_by_max_people_where_that_is_enough_to_choose_from():
    nets = PoseNetsSpec(confidence=False, similarity=False, refinement=False)
    specs = [_spec("dac", max_people=people) for people in (1, 10, 25)]
    assert [spec.most_candidates for spec in specs] == [10, 10, 25]
    assert specs[0].model_copy(update={"pose_nets": nets}).most_candidates == 1


def test_pose_networks_see_every_candidate_whatever_score_is_asked_for():
    pictures = [_picture(BODY)]
    networks, adaptation = (_pipeline(_spec(method)) for method in ("dac", "logocap"))
    for pipeline in (networks, adaptation):
        pipeline.run_batch(pictures, floor=1.0)
    assert networks.adapt.persons == [4]
    assert adaptation.adapt.persons == []


class Broken(PoseGraph):
    """Gives no numbers for what it is asked to break."""

    def __init__(self, spec, name):
        super().__init__(spec)
        self.name = name

    def run(self, feeds):
        outputs = super().run(feeds)
        outputs[self.name] = outputs[self.name] * np.float32(np.nan)
        return outputs


@pytest.mark.parametrize("name", ["similarity", "confidence", "residuals"])
def test_what_pose_networks_say_must_be_numbers(name):
    spec = _spec()
    with pytest.raises(RuntimeFault, match=f"{name} of the adapt graph hold values that are not finite"):
        Pipeline(spec, Trunk(spec), Broken(spec, name)).run(_picture(BODY))


def test_the_specification_says_the_method():
    assert isinstance(method_of(_spec("logocap")), LocalGlobalAdaptation)
    assert isinstance(method_of(_spec("dac")), DualCenters)


@pytest.mark.parametrize(
    ("method", "centers", "expected"),
    [
        ("logocap", "single", {"heatmaps": 4, "offsets": 6, "embedding": 3}),
        ("logocap", "dual", {"heatmaps": 5, "offsets": 12, "embedding": 3}),
        ("dac", "dual", {"heatmaps": 5, "offsets": 12, "level0": 3, "level1": 3, "level2": 3, "level3": 3}),
    ],
)
def test_outputs_of_the_trunk_in_order(method, centers, expected):
    shapes = trunk_outputs(_spec(method, centers))
    assert list(shapes) == list(expected)
    for name, channels in expected.items():
        place = 1 if name in ("heatmaps", "offsets") else 3
        assert shapes[name][place] == channels
        assert len(shapes[name]) == 4


@pytest.mark.parametrize("method", ["dac", "logocap"])
@pytest.mark.parametrize("centers", ["single", "dual"])
def test_graphs_of_the_model_are_accepted(method, centers):
    spec = _spec(method, centers)
    check_graphs(Trunk(spec), PoseGraph(spec), spec, Path("tiny"))


def test_graphs_of_another_model_are_refused():
    spec, path = _spec(), Path("tiny.posebundle")
    other = _spec("logocap")
    with pytest.raises(BundleError, match=r"the trunk graph .* expected \['image'\] and \['heatmaps', 'level0'"):
        check_graphs(Trunk(other), PoseGraph(spec), spec, path)
    with pytest.raises(BundleError, match=r"heatmaps of shape \[\?, 4, \?, \?\], the model .* \[\?, 5, \?, \?\]"):
        check_graphs(Trunk(_spec(centers="single")), PoseGraph(spec), spec, path)
    with pytest.raises(BundleError, match=r"similarity of shape \[\?, 8\], the model of its manifest \[\?, 3\]"):
        check_graphs(Trunk(spec), PoseGraph(_spec(nets={"embedding": 8})), spec, path)
    with pytest.raises(BundleError, match=r"context of shape \[\?, 3, 39\]"):
        check_graphs(Trunk(spec), PoseGraph(_spec(nets={"patch": 5})), spec, path)
    with pytest.raises(BundleError, match=r"the adapt graph .* gives \['confidence', 'similarity'\]"):
        check_graphs(Trunk(spec), PoseGraph(_spec(nets={"refinement": False})), spec, path)


def test_a_missing_second_graph_is_an_error_where_it_is_needed():
    spec, bare = _spec(), _spec(nets=NETS_OFF)
    with pytest.raises(BundleError, match="no adapt graph"):
        check_graphs(Trunk(spec), None, spec, Path("tiny"))
    check_graphs(Trunk(bare), None, bare, Path("tiny"))
    check_graphs(Trunk(bare), PoseGraph(spec), bare, Path("tiny"))
