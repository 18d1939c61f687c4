import json
import re

from posesdk_training.evaluation.ground_truth import load_ground_truth
from posesdk_training.evaluation.matching import match_results
from posesdk_training.report.cases import read_cases
from posesdk_training.report.plots import matching_charts, size_chart


def test_people_are_grouped_by_their_height_in_the_picture(small):
    # Of pictures of 100 px: 60 px found, 40 px found, 50 px missed.
    cases = read_cases(small.truth, small.folder, small.results, threshold=0.1)
    told = re.search('aria-label="([^"]*)"', size_chart(small.truth, cases).svg)[1]
    assert "40% to 60% (2) 0.50" in told
    assert "60% to 80% (1) 1.00" in told
    assert "95% to 100% (0) not measured" in told


def test_annotations_without_heights_have_no_size_chart(small):
    for entry in small.tree["images"]:
        del entry["height"]
    small.annotations.write_text(json.dumps(small.tree))
    truth = load_ground_truth(small.annotations, small.skeleton)
    assert size_chart(truth, read_cases(truth, small.folder, small.results, threshold=0.1)) is None


def test_threshold_is_marked_on_the_curve(small):
    # Of four results that count, three score above 0.1: two of them right, of three people.
    chart = matching_charts(small.truth, match_results(small.truth, small.results), 0.1)[1]
    assert "precision 0.67, recall 0.67" in chart.caption


def test_nothing_found_has_no_charts(small):
    assert matching_charts(small.truth, match_results(small.truth, []), 0.1) == []
