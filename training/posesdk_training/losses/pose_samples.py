"""Poses that the pose networks learn from: decoded candidates, jittered copies of the labels, and pairs of them.

DAC (arXiv 2208.11975), sections 3.2 and 3.3. The paper names no numbers; those here are ours. Everything is drawn by
numpy on the host, so that a sample is the same on every device and depends on its seed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posesdk.grouping import group_sigma, spatial_similarity
from posesdk.oks import oks
from posesdk.spec import ModelSpec
from posesdk_training.settings.learning import LossConfig

__all__ = ["ImagePoses", "PoseSamples", "Seed", "choose_pairs", "draw_samples", "jitter", "owners"]

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]
Flags = NDArray[np.bool_]
Seed = tuple[int, ...]
"""Of `numpy.random.default_rng`."""

STRANGER_OKS = 0.1
"""A candidate below it is nobody's; where the labels say nothing, that need not be a mistake."""
MOST_NOISE = 2.0
"""Largest deviation of a jittered keypoint, in the spread that its OKS allows: 2 sigma times the root of the area."""
SWAPPED = 0.1
"""Share of the jittered copies whose left and right are exchanged."""
STOLEN = 0.1
"""Share of the jittered copies that have one keypoint of somebody else."""
NEAR_PAIR = 0.05
"""Spatial similarity above which a pair of two persons' poses is a hard one."""


@dataclass(frozen=True, slots=True)
class ImagePoses:
    """What is known of an image: `candidates` (n, K, 2) and `masked` (n,) whether they lie where nothing is labelled;
    `keypoints` (G, K, 3) x, y, v and `areas` (G,) of its persons. Net px.
    """

    candidates: Floats
    masked: Flags
    keypoints: Floats
    areas: Floats


@dataclass(frozen=True, slots=True)
class PoseSamples:
    """N poses, those of one image together, and M pairs among those of one image.

    `poses` (N, K, 2) net px; `images` (N,) whose they are; `oks` (N,) with the person that each fits best; `persons`
    (N, K, 3) the keypoints of that person, v = 0 throughout where there is nobody; `pairs` (M, 2) indices of poses,
    `same` (M,) whether both are one person's.
    """

    poses: Floats
    images: Indices
    oks: Floats
    persons: Floats
    pairs: Indices
    same: Flags


def draw_samples(
    images: Sequence[ImagePoses], spec: ModelSpec, config: LossConfig, *, seeds: Sequence[Seed]
) -> PoseSamples:
    """The samples of a batch; what is random depends on an image's seed alone.

    Candidates of an OKS below 0.1 where nothing is labelled are left out: they would teach the networks that people
    whom nobody has annotated, the small ones above all, are mistakes.
    """
    parts, start = [], 0
    for place, (image, seed) in enumerate(zip(images, seeds, strict=True)):
        part = _of_image(np.random.default_rng(seed), image, spec, config, place=place, start=start)
        parts.append(part)
        start += len(part.poses)
    fields = ("poses", "images", "oks", "persons", "pairs", "same")
    return PoseSamples(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def _of_image(
    rng: np.random.Generator, image: ImagePoses, spec: ModelSpec, config: LossConfig, *, place: int, start: int
) -> PoseSamples:
    labelled = (image.keypoints[..., 2] > 0).any(1)
    keypoints, areas = image.keypoints[labelled], image.areas[labelled]
    fits = _similarities(image.candidates, keypoints, areas, spec)
    kept = ~(image.masked & (fits.max(axis=1, initial=0) < STRANGER_OKS))
    whole, known = _completed(keypoints, image.candidates, fits)
    copies = jitter(rng, whole, keypoints[..., 2] > 0, areas, spec, copies=config.jittered_copies)[:, known]
    poses = np.concatenate([image.candidates[kept], copies.reshape(-1, *copies.shape[2:])])
    fits = _similarities(poses, keypoints, areas, spec)
    nobody = np.zeros((1, *keypoints.shape[1:]), np.float32)
    similarity = fits.max(axis=1, initial=0)
    owner = owners(fits, config.identity_oks)
    pairs, same = choose_pairs(rng, poses, owner, sigma=group_sigma(spec), most=config.pairs)
    return PoseSamples(
        poses.astype(np.float32),
        np.full(len(poses), place),
        similarity.astype(np.float32),
        np.concatenate([keypoints, nobody])[owners(fits, 0.0)],
        pairs + start,
        same,
    )


def _similarities(poses: Floats, keypoints: Floats, areas: Floats, spec: ModelSpec) -> NDArray[np.float64]:
    """OKS (N, G) of poses with persons, all of whom have labelled keypoints."""
    return oks(poses, keypoints, areas, spec.skeleton.sigma_array)


def owners(similarities: NDArray[np.float64], least: float) -> Indices:
    """Which person each pose fits best, (N,), by their OKS (N, G); -1 where that is less than `least`, or nobody is."""
    if not similarities.shape[1]:
        return np.full(len(similarities), -1)
    return np.where(similarities.max(axis=1) >= least, similarities.argmax(axis=1), -1)


def _completed(keypoints: Floats, candidates: Floats, fits: NDArray[np.float64]) -> tuple[Floats, Flags]:
    """Whole poses (G, K, 2) of persons, and (G,) of whom there is one.

    The networks look at all keypoints of a pose, so unlabelled ones are taken from the candidate that fits best.
    """
    labelled = keypoints[..., 2] > 0
    whole = keypoints[..., :2].copy()
    known = labelled.all(1) | (fits.max(axis=0, initial=0) >= STRANGER_OKS)
    if len(candidates) and len(keypoints):
        whole = np.where(labelled[..., None], whole, candidates[fits.argmax(axis=0)])
    return whole, known


def jitter(
    rng: np.random.Generator, poses: Floats, labelled: Flags, areas: Floats, spec: ModelSpec, *, copies: int
) -> Floats:
    """Copies (copies, G, K, 2) of poses (G, K, 2) with mistakes as a network makes them.

    Keypoints are moved at random, left and right may be exchanged, and one keypoint may be the nearest one of its kind
    of another person, among those `labelled` (G, K).
    """
    number, count = poses.shape[:2]
    spread = 2 * spec.skeleton.sigma_array * np.sqrt(areas)[:, None]  # (G, K)
    amount = rng.uniform(0, MOST_NOISE, (copies, number, 1))
    noise = rng.standard_normal((copies, number, count, 2)) * (amount * spread)[..., None]
    swapped = rng.random((copies, number)) < SWAPPED
    stolen = rng.random((copies, number)) < STOLEN
    chosen = rng.integers(count, size=(copies, number))
    result = np.where(swapped[..., None, None], poses[:, spec.skeleton.flip_indices], poses)
    for copy, person in np.argwhere(stolen):
        keypoint = chosen[copy, person]
        others = np.flatnonzero(labelled[:, keypoint] & (np.arange(number) != person))
        if len(others):
            away = np.hypot(*(poses[others, keypoint] - result[copy, person, keypoint]).T)
            result[copy, person, keypoint] = poses[others[away.argmin()], keypoint]
    return np.asarray(result + noise, np.float32)


def choose_pairs(
    rng: np.random.Generator, poses: Floats, owner: Indices, *, sigma: ArrayLike, most: int
) -> tuple[Indices, Flags]:
    """Pairs (M, 2) of the poses (N, K, 2) of an image, and (M,) whether they have one `owner` (N,); -1 is nobody.

    At most `most` of one person and as many of two, of which half are the hardest: those that lie closest together.
    """
    owned = np.flatnonzero(owner >= 0)
    first, second = np.triu_indices(len(owned), 1)
    same = owner[owned[first]] == owner[owned[second]]
    together, apart = np.flatnonzero(same), np.flatnonzero(~same)
    nearness = np.zeros(0, np.float32)
    if len(apart):
        nearness = spatial_similarity(poses[owned], sigma)[first[apart], second[apart]]
    order = np.argsort(-nearness, kind="stable")
    hard = apart[order[: min(most // 2, int((nearness > NEAR_PAIR).sum()))]]
    easy = rng.permutation(np.setdiff1d(apart, hard))[: most - len(hard)]
    chosen = np.concatenate([rng.permutation(together)[:most], hard, easy])
    return np.stack([owned[first[chosen]], owned[second[chosen]]], axis=1), same[chosen]
