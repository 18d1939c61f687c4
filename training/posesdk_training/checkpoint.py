"""Checkpoints: the weights of a model and its `ModelSpec` in one safetensors file."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import CheckpointError
from posesdk_training.models.build import PoseModel, build_model

__all__ = [
    "Checkpoint",
    "key_faults",
    "load_checkpoint",
    "load_model",
    "load_weights",
    "save_checkpoint",
    "sync_folder",
]

FORMAT_KEY = "posesdk_checkpoint"
FORMAT_VERSION = "1"
SPEC_KEY = "posesdk_spec"
RESERVED = frozenset({FORMAT_KEY, SPEC_KEY, "format"})

NAMED_KEYS = 4
"""How many keys of each kind a message names; the rest is counted."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds; `state_dict` lies on the CPU in float32, `metadata` is free text."""

    spec: ModelSpec
    state_dict: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def save_checkpoint(
    path: str | os.PathLike[str],
    state_dict: Mapping[str, Tensor],
    spec: ModelSpec,
    *,
    metadata: Mapping[str, str] | None = None,
    half: bool = False,
) -> None:
    """Writes a checkpoint; `path` holds either the whole new file or what it held before.

    `half` stores the weights in float16. Vectors (biases, running statistics) and weights beyond float16's range
    stay in float32. Raises CheckpointError when it cannot be written.
    """
    notes = dict(metadata or {})
    if clash := sorted(RESERVED & notes.keys()):
        raise ValueError(f"metadata: the keys {clash} are taken by the checkpoint format")
    tensors = {key: _stored(value, half=half) for key, value in state_dict.items()}
    header = {FORMAT_KEY: FORMAT_VERSION, SPEC_KEY: spec.model_dump_json(), "format": "pt", **notes}
    target = Path(path)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        os.close(handle)
        save_file(tensors, temporary, metadata=header)
        os.chmod(temporary, 0o644)
        _sync(temporary)
        os.replace(temporary, target)
        sync_folder(target.parent)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write {target}: {error}; check the folder and its free space") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Brings a folder's names to the disk, so that a file that was renamed survives a loss of power."""
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(folder)


def _sync(path: str | os.PathLike[str]) -> None:
    handle = os.open(path, os.O_RDONLY if os.path.isdir(path) else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint in `path`, float tensors as float32.

    Raises CheckpointError for a missing, truncated or foreign file.
    """
    try:
        with safe_open(os.fspath(path), framework="pt", device="cpu") as archive:
            header = dict(archive.metadata() or {})
            spec = _read_spec(header, path)
            tensors = {key: _restored(archive.get_tensor(key)) for key in archive.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"checkpoint {path}: no such file; check the path") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {path}: not a readable safetensors file ({error}); it may be truncated or of another kind. "
            "Copy it again, or import a published LOGO-CAP file with `posesdk-convert --from-logocap`"
        ) from error
    return Checkpoint(spec, tensors, {key: value for key, value in header.items() if key not in RESERVED})


def load_model(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> PoseModel:
    """The model in `path`, in eval mode on `device`.

    Raises CheckpointError as `load_checkpoint` does, and for weights that do not fit the specification.
    """
    checkpoint = load_checkpoint(path)
    model = build_model(checkpoint.spec)
    load_weights(model, checkpoint.state_dict, source=path)
    return model.to(device).eval()


def load_weights(model: nn.Module, state_dict: Mapping[str, Tensor], *, source: str | os.PathLike[str]) -> None:
    """Puts `state_dict` into `model`, every key of both.

    Raises CheckpointError that names `source` and the missing, unexpected and misshaped keys.
    """
    own = model.state_dict()
    faults = key_faults(
        missing=sorted(own.keys() - state_dict.keys()),
        unexpected=sorted(state_dict.keys() - own.keys()),
        misshaped=[
            f"{key} {tuple(state_dict[key].shape)} instead of {tuple(value.shape)}"
            for key, value in own.items()
            if key in state_dict and state_dict[key].shape != value.shape
        ],
    )
    if faults:
        raise CheckpointError(
            f"checkpoint {source} does not fit its model: {faults}. "
            "Use the file of the same architecture and version, or convert it again"
        )
    model.load_state_dict(dict(state_dict), strict=True)


def key_faults(**kinds: Sequence[str]) -> str:
    """One phrase that names the first few keys of each kind and counts the rest; empty where there are none."""
    phrases = []
    for kind, keys in kinds.items():
        rest = len(keys) - NAMED_KEYS
        shown = ", ".join(keys[:NAMED_KEYS])
        if keys:
            phrases.append(f"{len(keys)} {kind} ({shown}{f', and {rest} more' if rest > 0 else ''})")
    return "; ".join(phrases)


def _read_spec(header: Mapping[str, str], path: str | os.PathLike[str]) -> ModelSpec:
    version = header.get(FORMAT_KEY)
    if version is None or SPEC_KEY not in header:
        raise CheckpointError(
            f"checkpoint {path}: a safetensors file, but not of posesdk (no model specification in its header); "
            "give a file that `posesdk-train` wrote"
        )
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"checkpoint {path}: format version {version}, this posesdk reads {FORMAT_VERSION}; upgrade posesdk"
        )
    try:
        return ModelSpec.model_validate_json(header[SPEC_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(
            f"checkpoint {path}: its model specification does not fit this posesdk ({where}: {first['msg']}); "
            "use the version that wrote it"
        ) from error


def _stored(value: Tensor, *, half: bool) -> Tensor:
    tensor = value.detach().to("cpu", copy=True).contiguous()
    if not half or tensor.ndim < 2 or not tensor.is_floating_point():
        return tensor
    halved = tensor.half()
    return halved if bool(torch.isfinite(halved).all()) else tensor


def _restored(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
