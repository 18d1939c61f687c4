"""scripts/gstreamer.sh on machines that lack this or that, told by stubs of their programs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "gstreamer.sh"
PACKAGES = [
    line.partition("#")[0].strip()
    for line in (SCRIPT.parent / "gstreamer_packages.txt").read_text("utf-8").splitlines()
    if not line.startswith("#")
]
TAG = f"cpython-{sys.version_info.major}{sys.version_info.minor}"


class Machine:
    """A folder with a virtual environment, the system's gi, and programs that say what they are told to."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.gi, self.venv = folder / "bin", folder / "gi", folder / "venv"
        self.site = self.venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
        self.asked = folder / "apt-get was asked"
        for made in (self.bin, self.gi, self.site):
            made.mkdir(parents=True)
        for name in ("bash", "sed", "find", "cat", "dirname", "ln"):
            (self.bin / name).symlink_to(shutil.which(name))
        python = self.venv / "bin" / "python"
        python.parent.mkdir()
        self.program("python", f'[[ $2 == "import gi" ]] && exit 1\necho {TAG} "{self.site}"\n', python)
        self.user(root=True)
        self.apt(works=True)
        self.install(PACKAGES)
        self.bindings(TAG)

    def program(self, name: str, script: str, path: Path | None = None) -> None:
        path = path or self.bin / name
        path.write_text(f"#!/bin/bash\n{script}", "utf-8")
        path.chmod(0o755)

    def user(self, *, root: bool) -> None:
        self.program("id", f"echo {0 if root else 1000}\n")

    def apt(self, *, works: bool) -> None:
        self.program("apt-get", f'echo "$@" >>"{self.asked}"\n{"exit 0" if works else "exit 100"}\n')

    def install(self, packages: list[str]) -> None:
        lines = "".join(f"echo installed {name}\n" for name in packages)
        self.program("dpkg-query", f"{lines}exit {int(len(packages) < len(PACKAGES))}\n")

    def bindings(self, tag: str) -> None:
        for old in self.gi.iterdir():
            old.unlink()
        (self.gi / "__init__.py").touch()
        (self.gi / f"_gi.{tag}-x86_64-linux-gnu.so").touch()

    def run(self, argument) -> tuple[str, str]:
        environment = {"PATH": str(self.bin), "GI": str(self.gi)}
        done = subprocess.run(
            [SCRIPT, argument], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def set_up(self) -> str:
        printed, said = self.run(self.venv)
        assert printed == "", said
        return said

    @property
    def calls(self) -> list[str]:
        return self.asked.read_text("utf-8").splitlines() if self.asked.exists() else []


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_list_of_packages_is_what_apt_takes():
    assert len(PACKAGES) == len(set(PACKAGES)) > 10
    assert all(name and " " not in name for name in PACKAGES)


def test_complete_machine_gets_the_link_and_then_nothing_is_said(machine):
    assert "linked" in machine.set_up()
    assert Path(os.readlink(machine.site / "gi")) == machine.gi
    assert machine.set_up() == ""
    assert machine.calls == []


def test_what_is_missing_is_installed_and_nothing_else(machine):
    machine.install([name for name in PACKAGES if name not in ("mosquitto", "python3-gst-1.0")])
    machine.set_up()
    update, install = machine.calls
    assert update.startswith("update")
    assert install.split()[-2:] == ["python3-gst-1.0", "mosquitto"]
    assert "--no-install-recommends" in install.split()


def test_without_root_the_command_is_printed_and_not_run(machine):
    machine.user(root=False)
    machine.install([name for name in PACKAGES if name != "mosquitto"])
    assert "sudo apt-get install --no-install-recommends mosquitto" in machine.set_up()
    assert machine.calls == []


def test_what_is_missing_is_printed_for_a_command_and_nothing_is_installed(machine):
    machine.install([name for name in PACKAGES if name not in ("mosquitto", "python3-gst-1.0")])
    assert machine.run("--missing") == ("python3-gst-1.0 mosquitto ", "")
    assert machine.calls == []
    assert not (machine.site / "gi").exists()


def test_apt_that_fails_stops_nothing_and_is_not_asked_again_at_once(machine):
    machine.apt(works=False)
    machine.install(PACKAGES[1:])
    said = machine.set_up()
    assert "apt failed" in said
    assert PACKAGES[0] in said
    assert "linked" in said
    assert len(machine.calls) == 1
    assert "within the last hour" in machine.set_up()
    assert len(machine.calls) == 1
    machine.install(PACKAGES[2:])  # something else: worth a try
    machine.set_up()
    assert len(machine.calls) == 2


def test_machine_without_apt_is_told_where_the_list_is(machine):
    (machine.bin / "apt-get").unlink()
    assert "scripts/gstreamer_packages.txt" in machine.set_up()


def test_gi_of_another_python_is_not_linked_and_both_versions_are_named(machine):
    machine.bindings("cpython-399")
    said = machine.set_up()
    assert "cpython-399" in said
    assert TAG in said
    assert "PYTHON=/usr/bin/python3" in said
    assert not (machine.site / "gi").is_symlink()


def test_no_gi_at_all_is_said(machine):
    shutil.rmtree(machine.gi)
    assert "no Python bindings" in machine.set_up()


def test_link_that_leads_nowhere_is_made_anew(machine):
    (machine.site / "gi").symlink_to(machine.venv / "gone")
    machine.set_up()
    assert (machine.site / "gi" / "__init__.py").exists()


def test_environment_that_has_gi_is_left_alone(machine):
    (machine.site / "gi").mkdir()
    (machine.site / "gi" / "__init__.py").touch()
    assert machine.set_up() == ""
    assert not (machine.site / "gi").is_symlink()
