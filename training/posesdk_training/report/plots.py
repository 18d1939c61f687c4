"""What a matching of results to labelled people gives to plot."""

import numpy as np
from numpy.typing import NDArray

from posesdk.skeleton import Skeleton
from posesdk_training.evaluate import Matching
from posesdk_training.report.charts import Bar, bars, histogram, precision_recall, recall_curve
from posesdk_training.report.page import Chart

__all__ = ["keypoint_similarity", "matching_charts"]

Floats = NDArray[np.float64]


def matching_charts(matching: Matching, skeleton: Skeleton, threshold: float) -> list[Chart]:
    """Keypoint similarity, precision over recall, and scores; none where nobody was found."""
    charts = []
    if matching.matches:
        charts.append(_keypoint_chart(matching, skeleton))
    if len(matching.scores):
        charts += [_recall_chart(matching, threshold), _score_chart(matching, threshold)]
    return charts


def keypoint_similarity(matching: Matching, skeleton: Skeleton) -> Floats:
    """(K,) mean of exp(-d^2 / (2 area (2 sigma)^2)) over the labelled keypoints of matched people, NaN without any."""
    variances = (2 * skeleton.sigma_array.astype(np.float64)) ** 2
    total, counts = np.zeros(len(skeleton)), np.zeros(len(skeleton))
    for result, person in matching.matches:
        found, truth = (np.array(entry["keypoints"], np.float64).reshape(-1, 3) for entry in (result, person))
        distance = ((found[:, :2] - truth[:, :2]) ** 2).sum(1)
        labelled = truth[:, 2] > 0
        total += np.exp(-distance / (2 * max(person["area"], 1.0) * variances)) * labelled
        counts += labelled
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _keypoint_chart(matching: Matching, skeleton: Skeleton) -> Chart:
    values = keypoint_similarity(matching, skeleton).tolist()
    rows = [Bar(n, None if np.isnan(value) else value) for n, value in zip(skeleton.keypoints, values, strict=True)]
    title = "Accuracy of each keypoint"
    caption = f"Mean keypoint similarity (1 is exact) over the {len(matching.matches)} people found at OKS 0.5."
    return Chart(title, bars(title, rows), caption)


def _recall_chart(matching: Matching, threshold: float) -> Chart:
    recall, precision = precision_recall(matching.scores, matching.right, matching.persons)
    above = int((matching.scores >= threshold).sum())
    mark = (float(recall[above - 1]), float(precision[above - 1])) if above else None
    title = "Precision over recall at OKS 0.5"
    caption = f"{matching.persons} labelled people, {len(matching.scores)} results."
    if mark is not None:
        caption += f" The dot is the score threshold {threshold:.4g}: precision {mark[1]:.2f}, recall {mark[0]:.2f}."
    return Chart(title, recall_curve(title, recall, precision, mark), caption)


def _score_chart(matching: Matching, threshold: float) -> Chart:
    title = "Scores of the results"
    caption = "Results with OKS 0.5 or more, on top of those below it; the line is the score threshold."
    return Chart(title, histogram(title, matching.scores, matching.right, threshold), caption)
