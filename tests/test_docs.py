"""README and docs say what is there: commands and their options, links, Python, make targets."""

import ast
import functools
import importlib.metadata
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import posesdk

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
PROGRAMS = {
    "posesdk": "posesdk.cli",
    "posesdk-train": "posesdk_training.cli",
    "posesdk-convert": "posesdk_converters.cli",
}
WITHOUT_SUBCOMMANDS = {"posesdk-convert"}
GROUPS = {("posesdk", "gst")}
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def _blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in CODE.findall(text) if language in languages]


def _shell_lines(page: Path) -> list[str]:
    """What a reader types: the lines of `sh` blocks, and those of `console` blocks behind a `$`."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    typed = [line for block in _blocks(text, "sh") for line in block.splitlines()]
    shown = [line for block in _blocks(text, "console") for line in block.splitlines()]
    return [line for line in (*typed, *(line[2:] for line in shown if line.startswith("$ "))) if line.strip()]


def commands_of(page: Path) -> list[list[str]]:
    """The words of every command of ours; in a shell's pipe each counts."""
    commands = [words for line in _shell_lines(page) for words in _split(line)]
    return [words for words in commands if words and words[0] in PROGRAMS]


def _split(line: str) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for word in shlex.split(line, comments=True):
        if word in ("|", "&&", ";", ">", "2>"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


COMMANDS = sorted({shlex.join(words) for page in PAGES for words in commands_of(page)})


def command_faults(command: str) -> list[str]:
    """What a documented command line names that the program's own help does not."""
    program, *words = shlex.split(command)
    path = (program,)
    if words and program not in WITHOUT_SUBCOMMANDS and not words[0].startswith("-"):
        path = (program, words.pop(0))
    if path in GROUPS and words:
        path = (*path, words.pop(0))
    known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", _help(path)))
    used = [word.split("=")[0] for word in words if re.match(r"--?[A-Za-z]", word)]
    return [f"{' '.join(path)} has no {option}" for option in used if option not in known]


@functools.cache
def _help(path: tuple[str, ...]) -> str:
    program, *command = path
    module = PROGRAMS[program]
    folders = [str(ROOT / folder) for folder in ("runtimes", "sdk", "training", "converters")]
    done = subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *command, "--help"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"`{' '.join(path)} --help` failed:\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_command_has_these_options(command):
    assert command_faults(command) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    links = [link for link in LINK.findall(page.read_text("utf-8")) if not re.match(r"[a-z]+:", link)]
    assert [link for link in links if not (page.parent / link.split("#")[0]).exists()] == []


def test_index_names_every_page():
    index = ROOT / "docs" / "index.md"
    named = {(index.parent / link).resolve() for link in LINK.findall(index.read_text("utf-8")) if ":" not in link}
    assert sorted({page for page in PAGES if page.is_relative_to(index.parent)} - named - {index}) == []


@pytest.mark.parametrize("page", [ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_files_that_are_named_are_there(page):
    named = re.findall(r"`((?:sdk|runtimes|training|converters|scripts|tests)/[\w/.]+\.py)`", page.read_text("utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_compiles_and_imports_public_names(page):
    for source in _blocks(page.read_text("utf-8"), "python"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and node.module == "posesdk":
                assert {alias.name for alias in node.names} <= set(posesdk.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_documented_make_targets_exist(page):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    used = {words[1] for line in _shell_lines(page) if (words := line.split())[0] == "make"}
    assert used <= targets


def test_readme_opens_with_the_demo_and_the_tests():
    first = _blocks((ROOT / "README.md").read_text("utf-8"), "sh")[0].splitlines()
    assert [line.split("#")[0].strip() for line in first] == ["make demo", "make test"]


def test_checker_finds_an_option_that_does_not_exist():
    assert command_faults("posesdk gst launch 'fakesrc ! fakesink' --nosuch") == ["posesdk gst launch has no --nosuch"]
    assert command_faults("posesdk detect photo.jpg --no-such-option 3") == ["posesdk detect has no --no-such-option"]


def test_a_jetson_gets_every_dependency_that_is_not_its_own():
    """There posesdk is installed without any, since JetPack's OpenCV and TensorRT must stay."""
    wanted = {re.split(r"[<>=]", line)[0] for line in importlib.metadata.requires("posesdk") if "extra ==" not in line}
    (line,) = re.findall(r"^.*pip install \"numpy.*$", (ROOT / "docs/targets/jetson.md").read_text(), re.MULTILINE)
    assert set(re.findall(r'"([a-z-]+)', line)) == wanted - {"opencv-python-headless", "onnxruntime"}
