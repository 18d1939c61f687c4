import numpy as np
import pytest

from posesdk_training.report.cases import choose_cases, read_cases


def test_every_image_is_a_case_with_what_is_right_missed_and_wrong(small):
    cases = read_cases(small.truth, small.folder, small.results, threshold=0.1)
    assert [case.image_id for case in cases] == [1, 2, 3, 4, 5]
    counts = [(len(case.persons), len(case.missed), len(case.found), len(case.wrong)) for case in cases]
    assert counts == [(1, 0, 1, 0), (2, 1, 1, 0), (0, 0, 1, 1), (0, 0, 1, 0), (0, 0, 0, 0)]
    assert [person.annotation["id"] for person in cases[1].missed] == [13]
    assert [person.ignored for person in cases[3].labelled] == [True]


def test_oks_of_a_match_is_that_of_its_formula(small):
    case = read_cases(small.truth, small.folder, small.results, threshold=0.1)[1]
    # Moved by 2 px on x: every keypoint has exp(-4 / (2 * 40^2 * (2 * 0.1)^2)).
    assert case.matches == pytest.approx([np.exp(-4 / (2 * 1600 * 0.04))])


def test_result_on_a_crowd_is_neither_right_nor_wrong(small):
    cases = read_cases(small.truth, small.folder, small.results, threshold=0.1)
    assert [(entry.right, entry.wrong) for case in cases for entry in case.found] == [
        (True, False), (True, False), (False, True), (False, False)
    ]  # fmt: skip


def test_wrong_result_says_how_near_it_is_to_a_person(small):
    small.results[0] = {**small.results[0], "keypoints": [x + 15 * (i % 3 == 0) for i, x in
                        enumerate(small.results[0]["keypoints"])]}  # fmt: skip
    chosen = choose_cases(read_cases(small.truth, small.folder, small.results, threshold=0.8), 3)
    near = np.exp(-(15**2) / (2 * 3600 * 0.04))  # below 0.5
    assert chosen["Wrong with the highest score"][0].reason == f"score 0.90, OKS {near:.2f} with the nearest person"


def test_threshold_decides_what_is_shown(small):
    case = read_cases(small.truth, small.folder, small.results, threshold=0.0)[1]
    assert [(entry.score, entry.wrong) for entry in case.found] == [(0.8, False), (0.05, True)]


def test_kinds_list_the_cases_that_they_are_named_for(small):
    chosen = choose_cases(read_cases(small.truth, small.folder, small.results, threshold=0.1), 3)
    listed = {kind: [entry.case.image_id for entry in entries] for kind, entries in chosen.items()}
    assert listed == {
        "Large people missed": [2],
        "Most people missed": [2],
        "Wrong with the highest score": [3],
        "Least accurate": [2],
        "Best": [1],
    }


def test_reasons_count_the_people(small):
    chosen = choose_cases(read_cases(small.truth, small.folder, small.results, threshold=0.1), 3)
    assert chosen["Most people missed"][0].reason == "1 of 2 persons missed, the largest 50 x 50 px"
    assert chosen["Wrong with the highest score"][0].reason == "score 0.70, nobody is labelled"
    assert chosen["Best"][0].reason == "the only person found, OKS 1.00"


def test_count_limits_each_kind_and_nothing_found_lists_only_the_missed(small):
    cases = read_cases(small.truth, small.folder, [], threshold=0.1)
    chosen = choose_cases(cases, 1)
    assert {kind: [entry.case.image_id for entry in entries] for kind, entries in chosen.items()} == {
        "Large people missed": [1],
        "Most people missed": [2],
    }
    assert choose_cases(cases, 0) == {}


def test_largest_missed_person_comes_first(small):
    cases = read_cases(small.truth, small.folder, [], threshold=0.1)
    assert [entry.case.image_id for entry in choose_cases(cases, 2)["Large people missed"]] == [1, 2]
    assert [person.annotation["id"] for person in cases[1].missed] == [13, 12]
