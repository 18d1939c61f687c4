import numpy as np
import pytest

from posesdk import responses
from posesdk.responses import best_responses, convolve_windows, find_peaks
from posesdk.spec import AdaptationSpec, ModelSpec
from posesdk.windows import reweighed_windows, reweighing_window, sample_windows

KEYPOINTS = 17
MAP = (24, 30)


def _spec(frame: str = "consistent", **adaptation: object) -> ModelSpec:
    sizes = {"local_size": 5, "global_size": 41, "reweigh_sigma": 12.0} | adaptation
    return ModelSpec(name="t", frame=frame, adaptation=AdaptationSpec(**sizes))


def _peaks(rng: np.random.Generator, width: float, count: int = 1) -> np.ndarray:
    """Heatmaps with `count` Gaussians each, as a trained trunk gives them."""
    ys, xs = np.mgrid[: MAP[0], : MAP[1]].astype(np.float32)
    maps = np.zeros((KEYPOINTS, *MAP), np.float32)
    for plane in maps:
        for _ in range(count):
            x, y, height = rng.uniform(0, MAP[1]), rng.uniform(0, MAP[0]), rng.uniform(0.2, 1)
            np.maximum(plane, height * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * width**2)), out=plane)
    return maps


def _poses(rng: np.random.Generator, count: int) -> np.ndarray:
    """Keypoints all over a picture and as far as 30 px beyond it."""
    low, high = [-30, -30], [4 * MAP[1] + 30, 4 * MAP[0] + 30]
    return rng.uniform(low, high, (count, KEYPOINTS, 2)).astype(np.float32)


def _kernels(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    return rng.normal(0.2, 0.3, (count, KEYPOINTS, size, size)).astype(np.float32).clip(0, 1)


def _plain(poses: np.ndarray, maps: np.ndarray, kernels: np.ndarray, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    """The formula as it stands in the paper: the whole window, the whole convolution."""
    windows = sample_windows(poses, maps, spec.adaptation.global_size, spec.frame)
    return find_peaks(convolve_windows(windows * reweighing_window(spec.adaptation), kernels))


def _found(poses: np.ndarray, maps: np.ndarray, kernels: np.ndarray, spec: ModelSpec) -> tuple[np.ndarray, np.ndarray]:
    (x, y), values = best_responses(poses, maps, kernels, spec)
    return y * spec.adaptation.global_size + x, values


def _require_equal(
    poses: np.ndarray, maps: np.ndarray, kernels: np.ndarray, spec: ModelSpec, *, answered: bool = True
) -> None:
    """The same values, and the same places where no other pixel is as good within the rounding of float32."""
    indices, values = _found(poses, maps, kernels, spec)
    expected, expected_values = _plain(poses, maps, kernels, spec)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-7)
    windows = sample_windows(poses, maps, spec.adaptation.global_size, spec.frame)
    responses_of_all = convolve_windows(windows * reweighing_window(spec.adaptation), kernels)
    found = np.take_along_axis(responses_of_all.reshape(*indices.shape[:2], -1), indices, axis=-1)
    if answered:
        np.testing.assert_allclose(found, expected_values, rtol=1e-5, atol=1e-7)
        assert (indices == expected).mean() > 0.98


@pytest.mark.parametrize("frame", ["published", "consistent"])
@pytest.mark.parametrize(("width", "count"), [(1.0, 1), (2.5, 1), (1.5, 6), (6.0, 2)])
def test_the_patches_give_what_whole_windows_give(frame: str, width: float, count: int) -> None:
    rng = np.random.default_rng(count)
    _require_equal(_poses(rng, 12), _peaks(rng, width, count), _kernels(rng, 12, 5), _spec(frame))


@pytest.mark.parametrize("size", [3, 7, 11])
def test_the_patches_give_what_whole_windows_give_with_any_kernel(size: int) -> None:
    rng = np.random.default_rng(size)
    spec = _spec(local_size=size, global_size=49)
    _require_equal(_poses(rng, 6), _peaks(rng, 2), _kernels(rng, 6, size), spec)


@pytest.mark.parametrize("case", ["noise", "flat", "nothing", "negative"])
def test_maps_without_peaks_are_convolved_as_a_whole(case: str) -> None:
    rng = np.random.default_rng(0)
    maps = {
        "noise": rng.uniform(0, 1, (KEYPOINTS, *MAP)),
        "flat": np.full((KEYPOINTS, *MAP), 0.25),
        "nothing": np.zeros((KEYPOINTS, *MAP)),
        "negative": -rng.uniform(0, 1, (KEYPOINTS, *MAP)),
    }[case].astype(np.float32)
    poses, kernels, spec = _poses(rng, 4), _kernels(rng, 4, 5), _spec()
    indices, values = _found(poses, maps, kernels, spec)
    expected, expected_values = _plain(poses, maps, kernels, spec)
    np.testing.assert_allclose(values, expected_values, rtol=1e-5, atol=1e-7)
    if case in ("nothing", "negative"):
        np.testing.assert_array_equal(indices, expected)


def test_a_kernel_of_zeros_responds_with_zero() -> None:
    rng = np.random.default_rng(1)
    poses, kernels = _poses(rng, 3), _kernels(rng, 3, 5)
    kernels[1, 4] = 0
    _, values = best_responses(poses, _peaks(rng, 2), kernels, _spec())
    assert (values[1, 4] == 0).all()
    assert (values[0, 4] > 0).all()


def test_the_gaussian_may_be_cut_off_in_the_corners_or_missing() -> None:
    rng = np.random.default_rng(2)
    poses, maps, kernels = _poses(rng, 5), _peaks(rng, 2, 3), _kernels(rng, 5, 5)
    for change in ({"reweigh_sigma": 4.0}, {"reweigh_sigma": None}, {"prior": "kam"}):
        _require_equal(poses, maps, kernels, _spec(**change))
    assert (reweighing_window(_spec(reweigh_sigma=4.0).adaptation) == 0).any()


@pytest.mark.parametrize("frame", ["published", "consistent"])
def test_reweighed_windows_are_the_windows_times_the_gaussian(frame: str) -> None:
    rng = np.random.default_rng(3)
    poses, maps = _poses(rng, 4), rng.normal(0, 1, (KEYPOINTS, *MAP)).astype(np.float32)
    for sigma in (3.0, 12.0, None):
        adaptation = _spec(reweigh_sigma=sigma, global_size=33).adaptation
        expected = sample_windows(poses, maps, 33, frame) * reweighing_window(adaptation)
        np.testing.assert_allclose(reweighed_windows(poses, maps, adaptation, frame), expected, atol=1e-6)


def test_peaked_maps_are_settled_by_patches_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    whole: list[int] = []
    original = responses.convolve_windows

    def counted(windows: np.ndarray, attraction: np.ndarray) -> np.ndarray:
        whole.append(len(windows))
        return original(windows, attraction)

    monkeypatch.setattr(responses, "convolve_windows", counted)
    poses = np.full((6, KEYPOINTS, 2), 50, np.float32) + rng.uniform(-1, 1, (6, KEYPOINTS, 2)).astype(np.float32)
    ys, xs = np.mgrid[: MAP[0], : MAP[1]].astype(np.float32)
    peak = np.exp(-((xs - 13) ** 2 + (ys - 12) ** 2) / 4)
    best_responses(poses, np.stack([peak] * KEYPOINTS), np.ones((6, KEYPOINTS, 5, 5), np.float32), _spec())
    assert sum(whole) == 0
    flat = np.ones((KEYPOINTS, *MAP), np.float32)
    best_responses(poses, flat, np.ones((6, KEYPOINTS, 5, 5), np.float32), _spec(reweigh_sigma=None))
    assert sum(whole) == 6 * KEYPOINTS


def test_parts_of_a_crowd_give_what_each_person_gives_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    poses, maps, kernels = _poses(rng, 7), _peaks(rng, 2, 3), _kernels(rng, 7, 5)
    together = best_responses(poses, maps, kernels, _spec())
    monkeypatch.setattr(responses, "PIXELS_AT_ONCE", 40 * 41**2)
    for whole, parts in zip(together, best_responses(poses, maps, kernels, _spec()), strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-5)
