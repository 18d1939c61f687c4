"""Keypoint accuracy of any model on the same photos, by the evaluation that trained models go through."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers.finder import Finder, Found
from posesdk.images import read_image
from posesdk_training.evaluation.ground_truth import GroundTruth
from posesdk_training.evaluation.keypoints import KeypointAccuracy, evaluate_keypoints

__all__ = ["measure_accuracy"]

MOST = 30
"""Persons of a photo, as in every figure of the project; COCO counts the best 20."""


def measure_accuracy(
    finder: Finder, truth: GroundTruth, folder: Path, on_photo: Callable[[int], None]
) -> KeypointAccuracy:
    """The figures of all that a model finds, sure or not, in the photos of `truth`; pycocotools'."""
    results: list[dict[str, Any]] = []
    for done, (number, path) in enumerate(truth.existing_images(folder, option="--data"), start=1):
        image = read_image(path, oriented=False)  # annotations know nothing of an EXIF orientation
        results += _to_coco(finder.poses(image, everyone=True), number, truth.category)
        on_photo(done)
    return evaluate_keypoints(truth, results)


def _to_coco(found: Found, image: int, category: int) -> list[dict[str, Any]]:
    people = zip(found.keypoints[:MOST].astype(float), found.scores[:MOST], strict=True)
    return [
        {
            "image_id": image,
            "category_id": category,
            "keypoints": person.round(3).ravel().tolist(),
            "score": float(score),
        }
        for person, score in people
    ]
