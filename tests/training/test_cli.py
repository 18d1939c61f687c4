"""`posesdk-train` as a user types it."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from typer.testing import CliRunner

from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.data.batches import Batch
from posesdk_training.program import app
from posesdk_training.run.train_step import Stepper

ROOTS = [str(Path(__file__).parents[2] / name) for name in ("runtimes", "sdk", "training")]


@pytest.fixture
def recipe(tiny_run: ModuleType, tiny_set: tuple[Path, Path], tmp_path: Path) -> Path:
    config = tiny_run.tiny_config(*tiny_set, steps=3)
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def run_in_process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(ROOTS), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from posesdk_training.cli import main; main()", *arguments]
    if arguments[0].startswith("-m"):
        command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_recipes_are_listed():
    result = CliRunner().invoke(app, ["recipes"])
    assert result.exit_code == 0
    assert "logocap-nano" in result.stdout.split()
    assert all(len(line.split()) > 3 for line in result.stdout.splitlines())  # name and description


def test_help_names_every_command_in_one_whole_line():
    lines = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"}).stdout.splitlines()
    assert not any(line.endswith("...") for line in lines if "COMMAND" not in line)
    assert max(map(len, lines)) <= 80
    named = [line.split()[0] for line in lines[lines.index("Train:") :] if line.startswith("  ") and line.strip()]
    commands = [command.name or "" for command in app.registered_commands]
    assert [name for name in named if name in commands] == commands
    assert commands.index("fit") < commands.index("evaluate") < commands.index("pack")


def test_unknown_recipe_is_refused_with_the_known_ones():
    result = CliRunner().invoke(app, ["fit", "nothing-of-the-kind"])
    assert result.exit_code == 1
    assert "logocap-w32" in result.stderr


def test_override_that_is_none_is_a_usage_error(recipe: Path):
    result = CliRunner().invoke(app, ["fit", str(recipe), "--set", "steps"])
    assert result.exit_code == 2
    assert "key=value" in result.stderr


def test_fit_prints_where_the_weights_are(recipe: Path, tmp_path: Path):
    result = run_in_process("fit", str(recipe), "--set", "steps=2", "--accelerator", "cpu", folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "runs/tiny/last.safetensors"
    assert load_checkpoint(tmp_path / "runs/tiny/last.safetensors").metadata["step"] == "2"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_that_was_stopped_exits_as_a_shell_has_it(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
):
    take = Stepper.take

    def take_and_stop(self: Stepper, batches: list[Batch]) -> dict[str, float]:
        os.kill(os.getpid(), number)
        return take(self, batches)

    monkeypatch.setattr(Stepper, "take", take_and_stop)
    result = CliRunner().invoke(app, ["fit", str(recipe), "--run", str(tmp_path / "run"), "--accelerator", "cpu"])
    assert result.exit_code == code
    assert f"posesdk: stopped by {number.name} after step 1 of 3, which is saved in {tmp_path}/run" in result.stderr
    assert result.stdout == ""


@pytest.mark.slow
@pytest.mark.parametrize("adaptation", ["true", "false"])
def test_two_processes_train_one_model(recipe: Path, tmp_path: Path, adaptation: str):
    script = tmp_path / "posesdk-train"
    script.write_text(f"#!{sys.executable}\nfrom posesdk_training.cli import main\nmain()\n")
    script.chmod(0o755)
    arguments = ("fit", str(recipe), "--run", "two", "--set", f"phases.0.adaptation={adaptation}")
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", "--no-python", "--")
    devices = ("--accelerator", "cpu", "--devices", "2")
    result = run_in_process(*launcher, str(script), *arguments, *devices, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["two/last.safetensors"]
    assert "find_unused_parameters" not in result.stderr
    checkpoint = load_checkpoint(tmp_path / "two/last.safetensors")
    assert checkpoint.metadata["samples"] == str(3 * 2 * 2)  # steps, batch, processes
    with (tmp_path / "two/log.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]
