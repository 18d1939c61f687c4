"""Which samples resident batches are made of, and how."""

import csv

import cv2
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import DataError
from posesdk_training.config import load_config
from posesdk_training.data.resident import store as store_module
from posesdk_training.data.resident.batches import require_supported
from posesdk_training.data.resident.color import ColorDraws, blur_kernels, draw_colors, jitter
from posesdk_training.data.resident.source import resident_batches, smallest_crop
from posesdk_training.settings.branches import BranchConfig
from posesdk_training.settings.recipe import find_recipe
from posesdk_training.train import fit

CPU = torch.device("cpu")

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # of pycocotools
    pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore::DeprecationWarning:tensorboard"),
]


def with_augment(config, **changes):
    return config.model_copy(update={"augment": config.augment.model_copy(update=changes)})


def equal(one, other):
    same = (torch.equal(getattr(one, name), getattr(other, name)) for name in ("images", "heatmaps", "offsets"))
    return all(same) and one.names == other.names


def test_resumed_run_goes_on_with_the_batches_it_would_have_had(make_config):
    config = with_augment(make_config(steps=6), photometric=True)
    whole = list(resident_batches(config, CPU))
    assert len(whole) == 6
    rest = list(resident_batches(config, CPU, start=4))
    assert all(equal(one, other) for one, other in zip(whole[4:], rest, strict=True))
    assert not equal(whole[0], whole[1])
    other_rank = next(iter(resident_batches(config, CPU, rank=1, world=2)))
    assert not equal(whole[0], other_rank)


def test_one_set_alone_shows_every_photo_once_an_epoch(make_config):
    names = [name for batch in resident_batches(make_config(steps=5), CPU) for name in batch.names]
    assert [len(set(names[start : start + 4])) for start in range(0, 20, 4)] == [4] * 5


def test_sets_and_sizes_follow_their_shares(make_config):
    phases = [
        {"until": 0.5, "mixture": {"one": 0.2, "two": 0.8}, "sizes": {64: 0.5, 128: 0.5}},
        {"until": 1.0, "mixture": {"one": 1.0}, "sizes": {192: 1.0}},
    ]
    config = make_config({"one": {}, "two": {}}, phases=phases, steps=80, batch_size=8)
    batches = list(resident_batches(config, CPU))
    first = [name.startswith("two/") for batch in batches[:40] for name in batch.names]
    assert np.mean(first) == pytest.approx(0.8, abs=0.1)
    assert all(name.startswith("one/") for batch in batches[40:] for name in batch.names)
    sides = [batch.images.shape[-1] for batch in batches]
    assert sides[:40].count(64) == pytest.approx(20, abs=10)
    assert set(sides[:40]) == {64, 128}
    assert set(sides[40:]) == {192}


class HostQuestions(TorchDispatchMode):
    """Refuses what would make the host wait for a device."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        assert not any(part in str(operation) for part in ("_local_scalar_dense", "nonzero", "masked_select", "unique"))
        if "aten.index.Tensor" in str(operation):
            assert not any(index is not None and index.dtype == torch.bool for index in args[1])
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("branches", [["4x"], ["8x", "4x", {"name": "2x", "zoom": 0.5, "stem": "4x"}]])
@pytest.mark.parametrize("centers", ["single", "dual"])
def test_batch_is_made_without_a_question_to_the_device(make_config, centers, branches):
    model = ModelSpec(name="tiny", centers=centers)
    config = make_config({"one": {"supervised_window": 0.1}}, model=model, branches=branches)
    batches = iter(resident_batches(with_augment(config, photometric=True), CPU))
    with HostQuestions():
        made = [next(batches) for _ in range(4)]
        with pytest.raises(AssertionError):
            made[0].images.sum().item()  # is a question
    assert all(batch.images.any() for batch in made)


def test_unreadable_photos_are_left_out_and_a_set_of_them_is_an_error(make_config, tmp_path, caplog):
    config = make_config()
    (tmp_path / "one" / "2.png").write_bytes(b"none")
    names = {name for batch in resident_batches(config, CPU) for name in batch.names}
    assert names == {"one/1.png", "one/3.png", "one/4.png"}
    assert "1 of 4 photos could not be read" in caplog.text
    for number in (1, 3, 4):
        (tmp_path / "one" / f"{number}.png").write_bytes(b"none")
    with pytest.raises(DataError, match="data sets one could be read"):
        resident_batches(config, CPU)


def test_photos_beyond_the_free_memory_are_refused_before_they_are_decoded(make_config, monkeypatch):
    monkeypatch.setattr(store_module, "_free_bytes", lambda device: 1000)
    with pytest.raises(DataError, match=r"data\.resident: the photos take about .* MiB free"):
        resident_batches(make_config(), CPU)


REFUSED = {
    r"model\.frame": {"model": {"name": "tiny", "frame": "published"}},
    r"augment\.crop\.kind": {"augment": {"crop": {"kind": "image"}}},
    r"targets\.offset_window": {"targets": {"offset_window": "square"}},
    r"targets\.heatmap_windows": {"targets": {"heatmap_windows": "channel"}},
}


@pytest.mark.parametrize("option", REFUSED)
def test_options_that_it_does_not_have_are_named(make_config, option):
    with pytest.raises(DataError, match=option):
        resident_batches(make_config(**REFUSED[option]), CPU)


@pytest.mark.parametrize("recipe", ["logocap-nano", "logocap-small", "dac-nano", "dac-small"])
def test_recipes_of_small_models_can_be_trained_on_resident_data(recipe):
    require_supported(load_config(find_recipe(recipe)))


def test_photos_are_kept_as_reduced_as_the_widest_view_asks_for(make_config):
    base = make_config()

    def kept(*branches):
        chosen = tuple(BranchConfig.model_validate(branch) for branch in branches)
        return smallest_crop(base.model_copy(update={"branches": chosen}))

    for name, side in (("8x", 256), ("2x", 128)):
        assert kept("4x", name) == side
        assert kept("4x", {"name": name, "zoom": 4.0}) == side // 4
        assert kept("4x", {"name": name, "zoom": 0.5}) == 128


def test_colors_change_as_the_formulas_say():
    """Brightness, saturation, contrast, cast and gray one after the other, on one crop each."""
    rng = np.random.default_rng(1)
    draws = draw_colors(rng, 40)
    colors = rng.uniform(0, 255, (40, 6, 6, 3))
    expected = replay(np.random.default_rng(1), colors)
    nothing = torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    found = jitter(
        torch.from_numpy(colors).float(),
        *(torch.from_numpy(value).float() for value in (draws.mix, draws.shift, draws.mean_share)),
        blur=(nothing[0], torch.zeros(0, 11)),
        noise=nothing,
        generator=torch.Generator(),
    )
    np.testing.assert_allclose(found, expected, atol=2e-3)


def replay(rng, colors):
    """As `augment.jitter_colors` does it, with the draws of `draw_colors`."""
    number = len(colors)
    changed = rng.random(number) < 0.8
    gain, bias = rng.uniform(0.6, 1.4, number), rng.uniform(-25, 25, number)
    saturation, contrast = rng.uniform(0.3, 1.5, number), rng.uniform(0.6, 1.4, number)
    cast = rng.uniform(0.88, 1.12, (number, 3))
    gray = rng.random(number) < 0.08
    assert 0 < gray.sum() < number
    result = []
    for index, values in enumerate(colors):
        if changed[index]:
            values = values * gain[index] + bias[index]
            middle = values.mean(2, keepdims=True)
            values = middle + (values - middle) * saturation[index]
            values = values.mean() + (values - values.mean()) * contrast[index]
            values = values * cast[index]
        result.append(np.repeat(values.mean(2, keepdims=True), 3, axis=2) if gray[index] else values)
    return np.stack(result)


def test_blur_is_that_of_opencv_and_noise_has_its_deviation():
    picture = np.random.default_rng(0).uniform(0, 255, (3, 64, 64, 3)).astype(np.float32)
    sigmas = np.array([0.4, 1.3])
    draws = ColorDraws(
        np.tile(np.eye(3), (3, 1, 1)), np.zeros((3, 3)), np.zeros((3, 3)), np.array([0, 2]), sigmas, np.array([1]),
        np.array([7.0]),
    )  # fmt: skip
    found = jitter(
        torch.from_numpy(picture),
        *(torch.from_numpy(value).float() for value in (draws.mix, draws.shift, draws.mean_share)),
        blur=(torch.from_numpy(draws.blurred), torch.from_numpy(blur_kernels(sigmas)).float()),
        noise=(torch.from_numpy(draws.noisy), torch.from_numpy(draws.noise_deviations).float()),
        generator=torch.Generator().manual_seed(0),
    ).numpy()
    for index, sigma in zip((0, 2), sigmas, strict=True):
        np.testing.assert_allclose(found[index], cv2.GaussianBlur(picture[index], (0, 0), sigma), atol=0.5)
    assert (found[1] - picture[1]).std() == pytest.approx(7, rel=0.05)


def test_run_on_resident_data_resumes_and_reads_its_figures_late(tiny_run, tiny_set, tmp_path):
    data = {"resident": True, "sets": [{"name": "tiny", "annotations": tiny_set[0], "images": tiny_set[1]}]}
    config = tiny_run.tiny_config(*tiny_set, data=data, log_every=2, check_every=2)
    fit(config, tmp_path / "whole", accelerator="cpu")
    fit(config, tmp_path / "parts", accelerator="cpu", stop_after=3)
    fit(config, tmp_path / "parts", accelerator="cpu")
    whole, parts = (
        [row.split(",")[3:5] for row in (tmp_path / name / "log.csv").read_text().splitlines()[1:]]
        for name in ("whole", "parts")
    )
    assert len(whole) == 3
    np.testing.assert_allclose(np.array(parts, float), np.array(whole, float), rtol=1e-4)


@pytest.mark.parametrize("stem", ["own", "4x"])
def test_run_of_three_branches_on_resident_data_learns_in_each(tiny_run, tiny_set, tmp_path, stem):
    data = {"resident": True, "sets": [{"name": "tiny", "annotations": tiny_set[0], "images": tiny_set[1]}]}
    branches = ["4x", *({"name": name, "area_range": [0, None], "stem": stem} for name in ("8x", "2x"))]
    spec = tiny_run.TINY_SPEC.model_copy(update={"centers": "dual"})
    phases = [{"mixture": {"tiny": 1.0}, "sizes": {64: 1.0}, "adaptation": False}]
    changes = {"data": data, "branches": branches, "model": spec.model_dump(), "phases": phases, "steps": 3}
    fit(tiny_run.tiny_config(*tiny_set, **changes), tmp_path, accelerator="cpu")
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        assert all(float(row[f"{loss}{of}"]) > 0 for loss in ("heatmap", "offset") for of in ("", "_8x", "_2x"))


def test_crops_of_twice_the_side_are_blurred_and_noisy_twice_as_widely():
    draws = draw_colors(np.random.default_rng(0), 64)
    twice = draws.at(2)
    np.testing.assert_array_equal(twice.noise_deviations, 2 * draws.noise_deviations)
    kernels = blur_kernels(twice.blur_sigmas)
    steps = np.arange(kernels.shape[1]) - kernels.shape[1] // 2
    spreads = np.sqrt((kernels * steps**2).sum(1))
    np.testing.assert_allclose(spreads, 2 * draws.blur_sigmas, rtol=0.01)
