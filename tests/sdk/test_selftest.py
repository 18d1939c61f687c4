import json
from dataclasses import replace

import cv2
import pytest

from posesdk.bundle import GOLDEN_IMAGE, build_manifest_files, golden_expected, open_bundle, write_manifest
from posesdk.manifest import Variant
from posesdk.pipeline import open_pipeline
from posesdk.poses import Poses
from posesdk.selftest import run_selftest
from posesdk.variants import select_variant
from posesdk_runtimes.errors import BundleError, MissingDependencyError
from posesdk_runtimes.registry import available_runtimes

INSTALLED = {"onnxruntime", "openvino"} & {info.name for info in available_runtimes() if info.version}
"""The backends of the bundle that run here."""


@pytest.fixture
def folder(tmp_path, make_bundle, spots):
    return make_bundle(tmp_path / "tiny", spots([(50, 60), (140, 70)]))


def test_every_installed_backend_is_tested_and_agrees(tiny_bundle):
    checks = run_selftest(open_bundle(tiny_bundle))
    assert {check.candidate.runtime for check in checks} == INSTALLED
    for check in checks:
        assert check.passed
        assert (check.people, check.missing, check.extra) == (2, 0, 0)
        assert check.shift < 0.01
        assert "passed onnx-fp32 (fp32) with" in check.summary


def test_keypoints_that_are_elsewhere_fail_with_the_largest_shift(folder, change_golden):
    def move(persons):
        for point in persons[0]["keypoints"]:
            point[0] += 6  # px of the image, whose 128 px become 64 net px

    change_golden(folder, move)
    for check in run_selftest(open_bundle(folder)):
        assert not check.passed
        assert check.shift == pytest.approx(3, abs=0.01)
        assert check.within == pytest.approx(0.5)
        assert "FAILED" in check.summary


def test_one_undecided_keypoint_alone_does_not_fail(folder, change_golden):
    def move(persons):
        persons[0]["keypoints"][3][0] += 2

    change_golden(folder, move)
    for check in run_selftest(open_bundle(folder)):
        assert check.passed
        assert check.shift == pytest.approx(1, abs=0.01)


def test_int8_is_judged_by_the_likeness_of_people_and_not_by_single_keypoints(folder, change_golden):
    bundle = open_bundle(folder)
    variants = (bundle.manifest.variants[0].model_copy(update={"precision": "int8"}),)
    write_manifest(folder, bundle.manifest.model_copy(update={"variants": variants}))

    def move(count):
        def change(persons):
            for person in persons:
                for point in person["keypoints"][:count]:
                    point[0] += 60

        return change

    change_golden(folder, move(2))  # 2 of 17 keypoints are lost: the OKS is 15/17
    for check in run_selftest(open_bundle(folder)):
        assert check.within == pytest.approx(15 / 17)
        assert check.oks == pytest.approx(15 / 17, abs=0.01)
        assert check.passed
        assert "OKS 0.88" in check.summary
    change_golden(folder, move(4))
    for check in run_selftest(open_bundle(folder)):
        assert check.oks < 0.8
        assert not check.passed


def test_a_picture_without_people_is_said_to_show_little(make_bundle, spots, tmp_path):
    empty = make_bundle(tmp_path / "empty", spots([]))
    for check in run_selftest(open_bundle(empty)):
        assert check.passed
        assert "nobody is expected in the bundle's picture" in check.summary


def test_a_person_who_is_not_found_or_not_expected_fails(folder, change_golden):
    change_golden(folder, lambda persons: persons.append(dict(persons[0])))
    assert [check.missing for check in run_selftest(open_bundle(folder))] == [1] * len(INSTALLED)
    change_golden(folder, lambda persons: persons.__delitem__(slice(1, None)))
    for check in run_selftest(open_bundle(folder)):
        assert (check.missing, check.extra, check.passed) == (0, 1, False)
    change_golden(folder, list.clear)
    for check in run_selftest(open_bundle(folder)):
        assert (check.missing, check.extra, check.passed) == (0, 2, False)


def test_a_variant_of_fixed_size_is_compared_with_the_poses_at_that_size(folder):
    bundle = open_bundle(folder)
    size = (128, 192)  # the people of this model are always 32 x 40 net px, so they are half as large in the picture
    variants = (bundle.manifest.variants[0].model_copy(update={"name": "fixed", "input_size": size}),)
    write_manifest(folder, bundle.manifest.model_copy(update={"variants": variants}))
    assert not any(check.passed for check in run_selftest(open_bundle(folder)))
    bundle = open_bundle(folder)
    pipeline = open_pipeline(bundle, select_variant(bundle.manifest, "onnxruntime")[0])
    image = cv2.imread(str(folder / GOLDEN_IMAGE))
    found = pipeline.run(image)
    poses = Poses(
        keypoints=found.keypoints,
        keypoint_scores=found.keypoint_scores,
        scores=found.scores,
        image_size=image.shape[:2],
    )
    (folder / golden_expected(size)).write_text(json.dumps(poses.above(0.01).to_dict()))
    write_manifest(folder, bundle.manifest.model_copy(update={"files": build_manifest_files(folder)}))
    assert all(check.passed for check in run_selftest(open_bundle(folder)))


def test_another_score_fails(folder, change_golden):
    change_golden(folder, lambda persons: persons[0].update(score=persons[0]["score"] + 0.05))
    for check in run_selftest(open_bundle(folder)):
        assert not check.passed
        assert check.score == pytest.approx(0.05, abs=1e-3)


def test_a_bundle_without_a_golden_image_cannot_be_tested(tmp_path, make_bundle):
    with pytest.raises(BundleError, match="no golden image"):
        run_selftest(open_bundle(make_bundle(tmp_path / "plain")))


def test_a_variant_whose_backend_is_missing_is_said_to_be_skipped(folder, monkeypatch):
    bundle = open_bundle(folder)
    first = bundle.manifest.variants[0]
    phone = first.model_copy(update={"name": "mobile-int8", "runtime": ("tflite",), "precision": "int8"})
    write_manifest(folder, bundle.manifest.model_copy(update={"variants": (phone, first)}))
    found = [replace(info, version=None) if info.name == "tflite" else info for info in available_runtimes()]
    for module in ("posesdk.variants", "posesdk.selftest"):
        monkeypatch.setattr(f"{module}.available_runtimes", lambda: found)
    *others, last = run_selftest(open_bundle(folder))
    assert all(check.passed for check in others)
    assert last.summary == (
        "skipped mobile-int8 (int8) with tflite on cpu: not installed here; install it with "
        "`pip install 'posesdk[tflite]'`"
    )


def test_a_bundle_for_another_machine_says_what_is_missing(folder):
    variant = Variant(name="x", runtime=("toaster",), trunk="portable/trunk.onnx", adapt="portable/adapt.onnx")
    manifest = open_bundle(folder).manifest
    write_manifest(folder, manifest.model_copy(update={"variants": (variant,)}))
    with pytest.raises(MissingDependencyError, match="toaster"):
        run_selftest(open_bundle(folder))
