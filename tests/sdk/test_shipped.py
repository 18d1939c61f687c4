"""Models that come with the package, by their names, wherever a model can be named."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from posesdk import Detector
from posesdk.bundle import default_bundle_path, open_bundle
from posesdk.commands import app
from posesdk.shipped import find_bundle, shipped_name
from posesdk_runtimes.errors import BundleError


@pytest.fixture
def two_models(models: Path, tiny_bundle: Path, make_bundle, tmp_path: Path) -> Path:
    """The folder with `default`, whose own id is tiny, and `other`, whose id is its name."""
    from posesdk.bundle import write_bundle

    shutil.copyfile(tiny_bundle, models / "default.posebundle")
    write_bundle(make_bundle(tmp_path / "made", id="other"), models / "other.posebundle")
    return models


def test_default_model_has_a_name_and_an_id():
    own = open_bundle(default_bundle_path()).manifest.id
    assert find_bundle(None) == find_bundle("default") == find_bundle(own) == default_bundle_path()
    with Detector("default", threads=1) as named, Detector(threads=1) as unnamed:
        assert named.info == unnamed.info


def test_names_are_those_of_the_files_and_the_models_own(two_models: Path):
    assert find_bundle("other") == two_models / "other.posebundle"
    assert find_bundle("tiny") == find_bundle("default") == find_bundle(None) == two_models / "default.posebundle"
    assert [shipped_name(find_bundle(name)) for name in ("tiny", "other")] == ["default", "other"]
    assert shipped_name(Path("other.posebundle")) is None


def test_a_name_goes_before_a_file_and_a_path_is_never_a_name(two_models: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(two_models.parent)
    Path("other").mkdir()
    assert find_bundle("other") == two_models / "other.posebundle"
    assert find_bundle("./other") == find_bundle(Path("other")) == Path("other")


@pytest.mark.parametrize("unknown", ["none", "dac-tiny", "a.b", ""])
def test_an_unknown_name_is_told_with_those_that_are_known(two_models: Path, unknown: str):
    with pytest.raises(BundleError, match=r"no such file.*: it has default \(tiny\), other; check the path"):
        Detector(unknown)


@pytest.mark.parametrize("path", ["none.posebundle", "none/model", "/none"])
def test_a_path_where_nothing_is_is_not_taken_for_a_name(two_models: Path, path: str):
    with pytest.raises(BundleError, match=f"{path}: there is no such file or folder; check the path"):
        Detector(path)


def test_without_any_model_the_error_says_so(models: Path):
    with pytest.raises(BundleError, match="it has none, for it was installed without its models"):
        find_bundle("other")
    with pytest.raises(BundleError, match="holds no default model"):
        find_bundle(None)


@pytest.mark.parametrize("command", ["detect", "info", "selftest", "verify", "prepare", "handover"])
def test_every_command_takes_a_name(two_models: Path, spots, command: str, tmp_path: Path):
    import cv2

    picture = tmp_path / "pictures" / "7.png"
    picture.parent.mkdir()
    cv2.imwrite(str(picture), spots([(50, 60), (140, 70)]))
    options = {
        "detect": (str(picture), "--json", "-", "--model"),
        "verify": ("--data", str(picture.parent)),
        "handover": ("-o", str(tmp_path / "out")),
    }
    unknown = CliRunner().invoke(app, [command, *options.get(command, ()), "none"])
    assert unknown.exit_code == 4
    assert "it has default (tiny), other" in unknown.stderr
    known = CliRunner().invoke(app, [command, *options.get(command, ()), "default"])
    # A tiny model has nothing for TensorRT or for phones, and says so under its name.
    assert known.exit_code == (2 if command in ("prepare", "handover") else 0), known.output
    assert ("tiny" in known.stdout) if command in ("detect", "info") else "none" not in known.output
