"""What `posesdk doctor` says of broken installations of GStreamer, each one made for the test.

The parts that look at the loader of Python plugins run it; they need no gi in this interpreter, only the tools.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from loader_check import need_the_loader
from posesdk.gst import availability, doctor_findings, plugin_loader, plugin_path, why_unavailable
from posesdk.gst.availability import find_obstacle, gi_minors
from posesdk.gst.doctor_findings import examine_gstreamer, examine_loader

SYSTEM_GI = Path("/usr/lib/python3/dist-packages/gi")
PACKAGE = Path(availability.__file__).resolve().parents[2]

reason = why_unavailable()
needs_gstreamer = pytest.mark.skipif(reason is not None, reason=reason or "")
needs_loader = pytest.mark.skipif(
    plugin_loader.loader_library() is None or shutil.which("gst-inspect-1.0") is None,
    reason="needs gstreamer1.0-python3-plugin-loader and gstreamer1.0-tools",
)


def why(python: str = sys.executable, *, path: str = "", setup: str = "", **variables) -> str:
    """`why_unavailable()` of another interpreter, without its site-packages; `path` goes before everything else."""
    script = f"import sys; sys.path.insert(0, {str(PACKAGE)!r})\n{setup}\nfrom posesdk.gst import why_unavailable\n"
    environment = {**os.environ, **variables, "PYTHONPATH": path}
    done = subprocess.run(
        [python, "-S", "-c", f"{script}print(why_unavailable())"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def gi(tmp_path) -> Path:
    """A copy of the system's gi, in a folder of its own, to break."""
    if not SYSTEM_GI.exists():
        pytest.skip("needs Debian's python3-gi")
    shutil.copytree(SYSTEM_GI, tmp_path / "path" / "gi", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "path" / "gi"


def test_no_gi_names_the_packages():
    told = why()
    assert "no module gi" in told
    assert "apt-get install python3-gst-1.0 gir1.2-gst-plugins-base-1.0" in told


def test_no_gi_in_an_environment_says_how_to_make_one_that_has_it():
    told = why(setup="sys.prefix = '/some/environment'")
    assert "/usr/bin/python3 -m venv --system-site-packages /some/environment" in told


@needs_gstreamer
def test_copy_of_the_systems_gi_is_well(gi):
    assert why(path=str(gi.parent)) == "None"


def test_gi_for_another_python_names_both_versions(gi):
    (extension,) = gi.glob("_gi.cpython-*.so")
    extension.rename(gi / "_gi.cpython-399-x86_64-linux-gnu.so")
    told = why(path=str(gi.parent))
    assert "gi was compiled for Python 3.99" in told
    assert f"this is Python {sys.version_info.major}.{sys.version_info.minor}" in told
    assert "cannot import name '_gi'" in told
    assert "/usr/bin/python3 -m venv --system-site-packages" in told


def other_python() -> str | None:
    """An interpreter that the SDK supports and that is of another minor version than this one."""
    for minor in range(10, 15):
        name = f"python3.{minor}"
        found = [Path.home() / ".pyenv" / "versions", *(Path(folder) for folder in os.get_exec_path())]
        for candidate in (*found[0].glob(f"3.{minor}.*/bin/{name}"), *(folder / name for folder in found[1:])):
            probe = [str(candidate), "-c", "import sys; print(sys.version_info.minor)"]
            if minor == sys.version_info.minor or not candidate.exists():
                continue
            done = subprocess.run(probe, capture_output=True, text=True, timeout=20, check=False)
            if done.stdout.strip() == str(minor):
                return str(candidate)
    return None


def test_real_python_of_another_minor_is_told_so(gi):
    python = other_python()
    if python is None:
        pytest.skip("needs a second Python")
    told = why(python, path=str(gi.parent))
    assert "gi was compiled for Python" in told
    assert "cannot import name '_gi'" in told


def test_versions_that_gi_was_made_for_are_read_from_its_files(tmp_path):
    for name in ("_gi.cpython-39-x86_64-linux-gnu.so", "_gi.cpython-313-aarch64-linux-gnu.so", "_gi_cairo.so"):
        (tmp_path / name).touch()
    assert sorted(gi_minors(tmp_path)) == ["3.13", "3.9"]


@needs_gstreamer
def test_missing_overrides_name_their_package_and_pips_gi_is_to_be_removed(gi, tmp_path):
    for file in (gi / "overrides").glob("*Gst*"):
        file.unlink()
    for file in (gi / "overrides").glob("_gi_gst*"):
        file.unlink()
    told = why(path=str(gi.parent))
    assert "no overrides for GStreamer" in told
    assert told.endswith("apt-get install python3-gst-1.0")
    site = tmp_path / "lib" / "site-packages"
    site.mkdir(parents=True)
    gi.rename(site / "gi")
    assert "pip uninstall pygobject" in why(path=str(site))


@needs_gstreamer
@pytest.mark.parametrize(
    ("typelib", "package"),
    [
        ("Gst", "gir1.2-gstreamer-1.0"),
        ("GstBase", "gir1.2-gstreamer-1.0"),
        ("GstVideo", "gir1.2-gst-plugins-base-1.0"),
    ],
)
def test_each_missing_typelib_names_its_package(gi, typelib, package):
    """As with a package that is not there: gi looks a name up in folders that this process cannot change."""
    setup = f"""
import gi, importlib
found = gi.require_version
def require(name, version):
    if name == {typelib!r}:
        raise ValueError(f"Namespace {{name}} not available")
    found(name, version)
gi.require_version = require
"""
    told = why(path=str(gi.parent), setup=setup)
    assert f"description of {typelib} is missing" in told
    assert told.endswith(f"apt-get install {package}")


@needs_gstreamer
def test_gstreamer_before_1_20_is_too_old(monkeypatch):
    from posesdk.gst.bindings import Gst

    monkeypatch.setattr(Gst, "version", lambda: (1, 18, 4, 0))
    obstacle = find_obstacle()
    assert "older than 1.20" in obstacle.reason
    assert "JetPack 6" in obstacle.remedy


@pytest.mark.parametrize(
    ("release", "old"),
    [("# R35 (release), REVISION: 4.1", True), ("# R36 (release), REVISION: 3.0", False), ("something else", False)],
)
def test_jetpack_5_is_too_old_whatever_else_there_is(monkeypatch, tmp_path, release, old):
    file = tmp_path / "nv_tegra_release"
    file.write_text(release + "\n", "utf-8")
    monkeypatch.setattr(doctor_findings, "TEGRA_RELEASE", file)
    findings = list(examine_gstreamer())
    assert ("JetPack 5" in findings[0].detail) is old
    if old:
        assert len(findings) == 1
        assert "JetPack 6" in findings[0].advice


@needs_gstreamer
@pytest.mark.parametrize(
    ("gone", "package"),
    [
        ({"videoconvert"}, "gstreamer1.0-plugins-base"),
        ({"decodebin"}, "gstreamer1.0-plugins-base"),
        ({"rtspsrc"}, "gstreamer1.0-plugins-good"),
        (set(doctor_findings.H264_DECODERS), "gstreamer1.0-libav"),
    ],
    ids=["convert", "files", "rtsp", "h264"],
)
def test_missing_plugins_are_told_by_purpose(monkeypatch, gone, package):
    from posesdk.gst.bindings import Gst

    find = Gst.ElementFactory.find
    monkeypatch.setattr(Gst.ElementFactory, "find", lambda name: None if name in gone else find(name))
    told = [finding for finding in examine_gstreamer() if finding.name == "GStreamer plugins"]
    assert [finding.state for finding in told] == ["missing"]
    assert package in told[0].advice


@needs_gstreamer
def test_one_decoder_is_enough(monkeypatch):
    from posesdk.gst.bindings import Gst

    find = Gst.ElementFactory.find
    known = {"v4l2h264dec"}
    others = set(doctor_findings.H264_DECODERS) - known

    def found(name):
        return None if name in others else find("identity" if name in known else name)

    monkeypatch.setattr(Gst.ElementFactory, "find", found)
    (told,) = [finding for finding in examine_gstreamer() if finding.name == "GStreamer plugins"]
    assert told.state == "ok"
    assert "v4l2h264dec" in told.detail


def test_missing_tools_name_their_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (told,) = [finding for finding in examine_gstreamer() if finding.name == "GStreamer tools"]
    assert "apt-get install gstreamer1.0-tools" in told.advice


def test_missing_loader_names_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("GST_PLUGIN_SYSTEM_PATH", str(tmp_path))
    told = examine_loader()
    assert told.state == "missing"
    assert "apt-get install gstreamer1.0-python3-plugin-loader" in told.advice


@pytest.fixture
def system(tmp_path, monkeypatch) -> Path:
    """A GStreamer of the core and the loader, with a registry of its own and this environment active.

    Its plugins are a folder of links; every variable that points elsewhere is gone.
    """
    library = plugin_loader.loader_library()
    folder = tmp_path / "system"
    folder.mkdir()
    for name in ("libgstpython.so", "libgstcoreelements.so"):
        (folder / name).symlink_to(library.parent / name)
    for name in (*plugin_loader.VARIABLES, "GST_PLUGIN_SYSTEM_PATH_1_0", "GST_REGISTRY_1_0"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GST_PLUGIN_SYSTEM_PATH", str(folder))
    monkeypatch.setenv("GST_REGISTRY", str(tmp_path / "registry.bin"))
    site = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    roots = [str(folder) for folder in sys.path if folder.endswith("/runtimes")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *roots]))
    return folder


def gst_inspect(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["gst-inspect-1.0", *words], capture_output=True, text=True, timeout=60, check=False)


@needs_loader
def test_loader_that_works_is_ok_and_env_names_what_is_left(system, monkeypatch):
    need_the_loader()
    told = examine_loader()
    assert (told.state, told.advice) == ("ok", "")
    assert 'eval "$(posesdk gst env)"' in told.detail
    monkeypatch.setenv("GST_PLUGIN_PATH", str(plugin_path()))
    told = examine_loader()
    assert told.state == "ok"
    assert "finds the elements, and runs them" in told.detail
    assert not plugin_loader.registry_file().exists()  # looking changes nothing


@needs_loader
def test_python_without_the_packages_is_told_with_the_environment_to_activate(system, monkeypatch):
    need_the_loader()
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    told = examine_loader()
    assert told.state == "missing"
    assert "posesdk_runtimes" in told.detail
    if sys.prefix != sys.base_prefix:
        assert f". {sys.prefix}/bin/activate" in told.advice
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert "--system-site-packages" in examine_loader().advice


@needs_loader
def test_python_of_another_minor_first_on_path_blacklists_the_loader_for_good(system, monkeypatch, tmp_path):
    """The real thing: a second environment, a scan in it, and the same question after leaving it."""
    python = other_python()
    if python is None:
        pytest.skip("needs a second Python")
    need_the_loader()
    subprocess.run([python, "-m", "venv", "--without-pip", tmp_path / "other"], check=True, timeout=60)
    path, packages = os.environ["PATH"], os.environ["PYTHONPATH"]
    monkeypatch.setenv("PATH", f"{tmp_path / 'other' / 'bin'}:{path}")
    monkeypatch.delenv("PYTHONPATH")
    told = examine_loader()
    assert told.state == "missing"
    assert "the loader is made for Python 3." in told.detail
    assert str(tmp_path / "other") in told.detail
    assert "rm " not in told.advice
    gst_inspect("--exists", "logocappose")
    assert f"rm {tmp_path / 'registry.bin'}" in examine_loader().advice
    monkeypatch.setenv("PATH", path)
    monkeypatch.setenv("PYTHONPATH", packages)
    told = examine_loader()
    assert told.state == "missing"
    assert "blacklisted" in told.detail
    assert f"rm {tmp_path / 'registry.bin'}" in told.advice
    Path(told.advice.split(";")[0].removeprefix("rm ")).unlink()
    assert examine_loader().state == "ok"


@needs_loader
def test_element_that_failed_once_and_is_remembered_as_missing_is_told(system, monkeypatch, tmp_path):
    """The registry of a shim that failed at import, put in the place of the one that is asked."""
    need_the_loader()
    monkeypatch.setenv("GST_PLUGIN_PATH", str(plugin_path()))
    monkeypatch.setattr(doctor_findings, "cached", lambda element: "missing")
    told = examine_loader()
    assert told.state == "missing"
    assert "remembers" in told.detail
    assert f"rm {tmp_path / 'registry.bin'}" in told.advice


@needs_loader
def test_remembered_failure_is_seen_in_a_copy_of_the_registry(system, monkeypatch, tmp_path):
    need_the_loader()
    shim = tmp_path / "ours" / "python" / "broken.py"
    shim.parent.mkdir(parents=True)
    shim.write_text("import nothing_of_that_name\n", "utf-8")
    monkeypatch.setenv("GST_PLUGIN_PATH", str(tmp_path / "ours"))
    assert gst_inspect("--exists", "logocappose").returncode == 1
    before = (tmp_path / "registry.bin").read_bytes()
    assert plugin_loader.cached(element="logocappose") == "missing"
    assert plugin_loader.cached(element="fakesink") == "found"
    assert (tmp_path / "registry.bin").read_bytes() == before


@needs_loader
@pytest.mark.parametrize("linked", [True, False], ids=["undefined-symbols", "path-that-is-not-there"])
def test_missing_libpython_is_told_with_three_remedies(system, tmp_path, monkeypatch, linked):
    """The loader of Debian 13 is not linked to libpython, and looks for a name that a development package has."""
    library = system / "libgstpython.so"
    content = library.read_bytes()
    (name,) = set(re.findall(rb"libpython3\.\d+\.so(?=\.1\.0\0)", content))
    library.unlink()
    if linked:
        needed = name + b".1.0\0"
        library.write_bytes(content.replace(needed, b"libm.so.6\0".ljust(len(needed), b"\0")))
    else:
        library.write_bytes(content)
        tool = tmp_path / "bin" / "gst-inspect-1.0"
        tool.parent.mkdir()
        complaint = f"plugin_init: Couldn't load libpython. Reason: {name.decode()}: cannot open shared object file"
        tool.write_text(f'#!/bin/sh\necho "{complaint}" >&2\nexit 1\n', "utf-8")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    told = examine_loader()
    assert told.state == "missing"
    assert name.decode() in told.detail
    for remedy in ("apt-get install libpython3-dev", f"LD_PRELOAD={name.decode()}.1.0", "posesdk gst launch"):
        assert remedy in told.advice


@needs_loader
def test_full_disk_is_told(system, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    told = examine_loader()
    assert told.state == "missing"
    assert "temporary files" in told.advice


@needs_loader
def test_tool_that_does_not_answer_is_told(system, monkeypatch):
    monkeypatch.setattr(plugin_loader, "LIMIT_S", 0.0)
    assert "does not answer" in examine_loader().detail


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({"GST_REGISTRY": "/a", "XDG_CACHE_HOME": "/b"}, "/a"),
        ({"GST_REGISTRY_1_0": "/c", "GST_REGISTRY": "/a"}, "/c"),
        ({"XDG_CACHE_HOME": "/b"}, f"/b/gstreamer-1.0/registry.{os.uname().machine}.bin"),
        ({"HOME": "/h"}, f"/h/.cache/gstreamer-1.0/registry.{os.uname().machine}.bin"),
    ],
)
def test_registry_file_is_where_gstreamer_has_it(monkeypatch, variables, file):
    for name in ("GST_REGISTRY", "GST_REGISTRY_1_0", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(plugin_loader.registry_file()) == file


def test_hints_of_env_are_those_of_the_doctor(monkeypatch):
    from posesdk.doctor import Finding
    from posesdk.gst.environment import hints

    monkeypatch.setattr(doctor_findings, "examine_loader", lambda: Finding("x", "missing", "this", "do that"))
    assert list(hints()) == ["this", "do that"]
    monkeypatch.setattr(doctor_findings, "examine_loader", lambda: Finding("x", "ok", "fine"))
    assert list(hints()) == []
