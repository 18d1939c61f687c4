"""What a matching of results to labelled people gives to plot."""

from collections.abc import Sequence

import numpy as np

from posesdk_training.evaluation.ground_truth import GroundTruth
from posesdk_training.evaluation.matching import Matching
from posesdk_training.evaluation.per_keypoint import keypoint_figures
from posesdk_training.report.cases import Case
from posesdk_training.report.charts import Bar, bars, histogram, precision_recall, recall_curve
from posesdk_training.report.page import Chart

__all__ = ["matching_charts", "size_chart"]

HEIGHTS = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
"""Lower bounds of the groups; who fills more than 0.95 of the height is mostly cut off."""


def matching_charts(truth: GroundTruth, matching: Matching, threshold: float) -> list[Chart]:
    """Keypoint similarity, precision over recall, and scores; none where nobody was found."""
    charts = []
    if matching.matches:
        charts.append(_keypoint_chart(truth, matching))
    if len(matching.scores):
        charts += [_recall_chart(matching, threshold), _score_chart(matching, threshold)]
    return charts


def size_chart(truth: GroundTruth, cases: Sequence[Case]) -> Chart | None:
    """Share of people found by the height of their box in parts of the picture's; None where no height is known."""
    found = np.zeros((2, len(HEIGHTS)))
    for case in cases:
        height = truth.images[case.image_id].get("height")
        for person in case.persons if height else ():
            group = int(np.searchsorted(HEIGHTS[1:], person.annotation["bbox"][3] / height, side="right"))
            found[:, group] += (not person.missed, 1)
    if not found[1].any():
        return None
    names = [f"{low:.0%} to {high:.0%}" for low, high in zip(HEIGHTS, (*HEIGHTS[1:], 1.0), strict=True)]
    rows = [
        Bar(f"{name} ({total:.0f})", hits / total if total else None)
        for name, hits, total in zip(names, *found.tolist(), strict=True)
    ]
    title = "People found, by their height in the picture"
    caption = "Recall at OKS 0.5 and the score threshold; in brackets how many people are labelled."
    return Chart(title, bars(title, rows), caption)


def _keypoint_chart(truth: GroundTruth, matching: Matching) -> Chart:
    *single, _ = keypoint_figures(truth, matching)
    title = "Accuracy of each keypoint"
    caption = f"Mean keypoint similarity (1 is exact) over the {len(matching.matches)} people found at OKS 0.5."
    return Chart(title, bars(title, [Bar(row.name, row.oks) for row in single]), caption)


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
