"""A run's folder: who may write to it, and states of which a whole one survives a kill at any moment."""

import errno
import json
import logging
import os
import pickle
import socket
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

from posesdk_runtimes.errors import CheckpointError, DataError
from posesdk_training.checkpoint import sync_folder

__all__ = [
    "BEST_FILE",
    "PREVIOUS_FILE",
    "STATE_FILE",
    "WEIGHTS_FILE",
    "clear_leftovers",
    "has_state",
    "lock_folder",
    "read_state",
    "set_aside",
    "write_state",
]

logger = logging.getLogger(__name__)

STATE_FILE = "last.ckpt"
PREVIOUS_FILE = "previous.ckpt"
DAMAGED_FILE = "damaged.ckpt"
WEIGHTS_FILE = "last.safetensors"
BEST_FILE = "best.safetensors"
LOCK_FILE = ".lock"
KEYS = frozenset({"config", "step", "model", "average", "optimizer"})
"""What the state of a run has to hold; more may be there."""

State = dict[str, Any]


class _DamagedError(Exception):
    """A state file that is no whole checkpoint of a run."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Holds a run folder for this process, until it ends in whatever way.

    Raises DataError when another process holds it, or when it cannot be written to. The lock is not inherited by
    loader processes.
    """
    try:
        opened = (folder / LOCK_FILE).open("a+")
    except OSError as error:
        raise DataError(
            f"cannot write to the run folder {folder}: {error.strerror}; give another with --run"
        ) from error
    with opened as file:
        try:
            _lock(file)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                logger.warning("cannot lock %s (%s): start no second run in it", folder, error.strerror)
            else:
                file.seek(0)
                owner = file.read().strip() or "unknown process"
                raise DataError(
                    f"the run folder {folder} is in use by another run ({owner}); "
                    "wait for it or stop it, or give another folder with --run"
                ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def _lock(file: IO[str]) -> None:
    if sys.platform != "win32":
        import fcntl

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def clear_leftovers(folder: Path) -> None:
    """Removes what a killed run had half written; the folder has to be locked."""
    for path in folder.glob("**/.*.tmp"):
        path.unlink(missing_ok=True)


def write_state(folder: Path, state: State) -> None:
    """Makes `state` the folder's last one; the one before is kept beside it.

    Raises CheckpointError when it cannot be written; the last good state is still there then.
    """
    target, temporary = folder / STATE_FILE, folder / f".{STATE_FILE}.tmp"
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            _keep(target, folder / PREVIOUS_FILE)
        os.replace(temporary, target)
        sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save wraps some faults of the disk
        temporary.unlink(missing_ok=True)
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise CheckpointError(
            f"cannot save step {state['step']} to {target}: {reason}; the last good checkpoint is kept. "
            "Check the free space, then give the same command to go on from it"
        ) from error


def _keep(path: Path, previous: Path) -> None:
    """Gives a file a second name, so that the first one is never missing."""
    spare = previous.with_name(f".{previous.name}.tmp")
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # a file system without links: for a moment there is only the previous state
        os.replace(path, previous)
    else:
        os.replace(spare, previous)


def has_state(folder: Path) -> bool:
    """Whether a run in this folder would be resumed."""
    return any((folder / name).exists() for name in (STATE_FILE, PREVIOUS_FILE))


def read_state(folder: Path, device: torch.device) -> tuple[State, Path] | None:
    """The folder's last state and its file, or with a warning those before where it is damaged; None without any.

    Raises CheckpointError when there are only damaged ones.
    """
    faults = []
    for name in (STATE_FILE, PREVIOUS_FILE):
        path = folder / name
        try:
            state = _load(path, device)
        except FileNotFoundError:
            faults.append(f"{name} is missing")
        except _DamagedError as error:
            faults.append(f"{name} is damaged ({error})")
        else:
            if faults:
                logger.warning("%s: going on from %s at step %d, %s", faults[0], path, state["step"], _loss(folder))
            return state, path
    if not has_state(folder):
        return None
    raise CheckpointError(
        f"cannot resume from {folder / STATE_FILE}: it is not a whole checkpoint of a run ({'; '.join(faults)}); "
        "move it away to start anew, or give another run folder"
    )


def set_aside(folder: Path) -> None:
    """Renames a last state that could not be read, so that it never takes the place of a good one."""
    path = folder / STATE_FILE
    if path.exists():
        os.replace(path, folder / DAMAGED_FILE)


def _loss(folder: Path) -> str:
    """What a run loses that goes on from its state before the last."""
    try:
        last = (folder / "log.csv").read_text().splitlines()[-1].partition(",")[0]
    except (OSError, IndexError):
        last = ""
    return f"steps up to {last}, which were logged, are done again" if last.isdigit() else "later steps are done again"


def _load(path: Path, device: torch.device) -> State:
    """The state in a file. Raises FileNotFoundError, and _DamagedError with what is wrong with it."""
    try:
        if path.stat().st_size == 0:
            raise _DamagedError("it is empty")
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # torch does not check what it reads
        if broken is not None:
            raise _DamagedError(f"its part {broken} is not what was written")
        state = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise _DamagedError(str(error).partition("\n")[0]) from error
    if not isinstance(state, dict) or (missing := KEYS - state.keys()):
        raise _DamagedError("it is no state of a run" if not isinstance(state, dict) else f"no {sorted(missing)} in it")
    try:
        json.loads(state["config"])
    except (TypeError, ValueError) as error:
        raise _DamagedError("its configuration cannot be read") from error
    return state
