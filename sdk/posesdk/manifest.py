"""`Manifest`: what a bundle says about itself, and the rules that its paths keep."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from posesdk._version import __version__
from posesdk.spec import ModelSpec
from posesdk_runtimes.errors import BundleError

__all__ = [
    "FLOAT_VARIANT",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "Accuracy",
    "BundleFile",
    "Licence",
    "Manifest",
    "NvidiaPlatform",
    "Precision",
    "Variant",
    "dump_manifest",
    "parse_manifest",
    "path_fault",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1
OLDEST_READER = "0.1.0"
"""The first posesdk that understands what is written here; raised with every addition that it would not."""
FLOAT_VARIANT = "float"
"""Name under which `accuracy` lists the trained model itself."""

Precision = Literal["fp32", "fp16", "bf16", "int8"]
NvidiaPlatform = Literal["jetson", "cuda"]
PositiveInt = Annotated[int, Field(gt=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Created = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BundleFile(_Value):
    """One file of a bundle: path from its root with forward slashes, size in bytes, sha256 in lower-case hex."""

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Variant(_Value):
    """One way to run the model.

    `runtime`: backends that can run it, the preferred one first. `devices`: families ("cpu", "cuda", "gpu", "npu").
    `trunk` and `adapt`: paths in the bundle; `adapt` is None for a model without an adaptation graph.
    `runtime_precision`: the arithmetic that the backend is told to use. `input_size`: (height, width) of a graph of
    fixed size, None where the size is free. `graphs`: "fused" where `trunk` is one graph that does the adaptation, too.
    `float_layers`: layers that an int8 variant keeps in float, by the names of the portable graphs. `platform`: the
    kind of NVIDIA device that it was made for, and is preferred on; None for every other variant.
    """

    name: Name
    runtime: Annotated[tuple[Name, ...], Field(min_length=1)] = ("openvino", "onnxruntime")
    devices: Annotated[tuple[Name, ...], Field(min_length=1)] = ("cpu",)
    precision: Precision = "fp32"
    trunk: str
    adapt: str | None = None
    runtime_precision: Literal["f32", "f16", "bf16"] = "f32"
    input_size: tuple[PositiveInt, PositiveInt] | None = None
    graphs: Literal["split", "fused"] = "split"
    float_layers: tuple[str, ...] = ()
    platform: NvidiaPlatform | None = None


class Accuracy(_Value):
    """What one variant reached on one data set; `variant` is "float" for the trained model itself."""

    variant: Name
    dataset: str
    images: PositiveInt
    metrics: dict[str, FiniteFloat]
    note: str = ""


class Licence(_Value):
    """Licences of the code and of the weights, and the data sets that the weights were trained on."""

    code: str
    weights: str
    training_data: tuple[str, ...] = ()


class Manifest(_Value):
    """Content of manifest.json. `variants` stand in order of preference; `files` lists every file but the manifest.

    `needs` is the oldest posesdk that reads the bundle; `created` is left out where equal bundles are to be equal.
    """

    schema_version: Literal[1] = 1
    id: Name
    version: Name
    model: ModelSpec
    needs: Annotated[str, Field(pattern=r"^\d+(\.\d+)*$")] = OLDEST_READER
    created: Created | None = None
    variants: Annotated[tuple[Variant, ...], Field(min_length=1)]
    files: tuple[BundleFile, ...]
    accuracy: tuple[Accuracy, ...] = ()
    licence: Licence
    provenance: dict[str, str] = {}

    @model_validator(mode="after")
    def _check(self) -> "Manifest":
        paths = [file.path for file in self.files]
        for path in paths:
            if fault := path_fault(path):
                raise ValueError(f"file {path!r} {fault}")
        names = [variant.name for variant in self.variants]
        for title, values in (("file", [*paths, MANIFEST_NAME]), ("variant", [*names, FLOAT_VARIANT])):
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"{title} {twice[0]!r} stands twice, or has a name that is taken")
        for variant in self.variants:
            for graph in (variant.trunk, variant.adapt):
                if graph is not None and graph not in paths:
                    raise ValueError(f"variant {variant.name!r} names {graph!r}, which is not among the files")
        for entry in self.accuracy:
            if entry.variant not in (*names, FLOAT_VARIANT):
                raise ValueError(f"accuracy is given for {entry.variant!r}, which is no variant")
        return self


def path_fault(path: str) -> str | None:
    """Why `path` must not stand in a bundle, or None if it may: it has to stay inside, on every operating system."""
    if not path or "\0" in path or not path.isprintable():
        return "is empty or holds characters that cannot be printed"
    if "\\" in path:
        return "holds a backslash"
    if path.startswith("/") or ":" in path:
        return "is an absolute path"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "holds an empty part, '.' or '..'"
    return None


def parse_manifest(data: bytes, bundle: str) -> Manifest:
    """The checked manifest; `bundle` names its bundle in errors. Raises BundleError."""
    where = f"cannot read {MANIFEST_NAME} of bundle {bundle}"
    try:
        content: Any = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where}: it is not JSON ({error}); get or convert the bundle again") from error
    version, needs = (content.get(key) if isinstance(content, dict) else None for key in ("schema_version", "needs"))
    if isinstance(needs, str) and _numbers(needs) > _numbers(__version__):
        raise BundleError(
            f"{where}: it needs posesdk {needs} or newer, this is {__version__}; "
            f"`pip install 'posesdk>={needs}'`, or convert the checkpoint again with this version"
        )
    if version != SCHEMA_VERSION:
        raise BundleError(
            f"{where}: schema version {version!r}, but this posesdk reads version {SCHEMA_VERSION}; "
            "upgrade posesdk, or convert the checkpoint again with this version"
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "content"
        raise BundleError(f"{where}: {place}: {first['msg']}; get or convert the bundle again") from error


def _numbers(version: str) -> tuple[int, ...]:
    """(1, 10, 0) of "1.10.0rc2": what versions are compared by."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def dump_manifest(manifest: Manifest) -> bytes:
    """The bytes of manifest.json."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()
