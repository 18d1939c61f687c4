"""Which variant is chosen: what is asked for by name is honoured or refused, "auto" follows the manifest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posesdk.manifest import BundleFile, Licence, Manifest, Variant
from posesdk.spec import ModelSpec
from posesdk.variants import select_variant
from posesdk_runtimes import registry
from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError
from posesdk_runtimes.registry import RUNTIMES, RuntimeInfo


def manifest(*variants: Variant) -> Manifest:
    return Manifest(
        id="tiny",
        version="1",
        model=ModelSpec(name="tiny"),
        created="2026-01-02T03:04:05+00:00",
        variants=variants,
        files=(BundleFile(path="t.onnx", size=1, sha256="0" * 64),),
        licence=Licence(code="Apache-2.0", weights="Apache-2.0"),
    )


INT8 = Variant(name="cpu-int8", runtime=("openvino",), precision="int8", trunk="t.onnx")
BF16 = Variant(name="cpu-bf16", precision="bf16", runtime_precision="bf16", trunk="t.onnx")
FP32 = Variant(name="portable-fp32", devices=("cpu", "cuda", "gpu"), trunk="t.onnx")
ENGINE = Variant(name="jetson", runtime=("tensorrt",), devices=("cuda",), precision="fp16", trunk="t.onnx")
LATER = Variant(name="later", runtime=("hailort",), devices=("npu",), precision="int8", trunk="t.onnx")
BUNDLE = manifest(ENGINE, INT8, BF16, FP32)
ORIN = ENGINE.model_copy(update={"name": "jetson-fp16", "platform": "jetson"})
CUDA_ONLY = ENGINE.model_copy(update={"name": "cuda-fp16", "runtime": ("tensorrt", "onnxruntime")})
CARD = ENGINE.model_copy(update={"name": "cuda-fp16", "platform": "cuda"})


def machine(**devices: tuple[str, ...]) -> list[RuntimeInfo]:
    """A machine on which the named backends are installed and find these devices."""
    return [
        replace(info, version="1" if devices.get(name) else None, devices=devices.get(name, ()))
        for name, info in RUNTIMES.items()
    ]


BOTH = machine(openvino=("cpu",), onnxruntime=("cpu",))
ORT = machine(onnxruntime=("cpu",))
CUDA = machine(openvino=("cpu",), onnxruntime=("cpu", "cuda"))

CHOICES: dict[str, tuple[list[RuntimeInfo], dict[str, str], list[tuple[str, str, str]]]] = {
    "auto prefers openvino on the CPU": (
        BOTH,
        {},
        [
            ("cpu-int8", "openvino", "cpu"),
            ("cpu-bf16", "openvino", "cpu"),
            ("portable-fp32", "openvino", "cpu"),
            ("portable-fp32", "onnxruntime", "cpu"),
        ],
    ),
    "auto without openvino": (ORT, {}, [("portable-fp32", "onnxruntime", "cpu")]),
    "auto with CUDA": (
        CUDA,
        {"precision": "fp32"},
        [
            ("portable-fp32", "onnxruntime", "cuda:0"),
            ("portable-fp32", "openvino", "cpu"),
            ("portable-fp32", "onnxruntime", "cpu"),
        ],
    ),
    "auto with CUDA, but openvino by name": (
        CUDA,
        {"precision": "fp32", "runtime": "openvino"},
        [("portable-fp32", "openvino", "cpu")],
    ),
    "CUDA by name stays on CUDA": (BOTH, {"device": "CUDA:1"}, [("portable-fp32", "onnxruntime", "cuda:1")]),
    "Intel GPU by name": (BOTH, {"device": "GPU.0"}, [("portable-fp32", "openvino", "gpu.0")]),
    "precision by name": (BOTH, {"precision": "int8"}, [("cpu-int8", "openvino", "cpu")]),
    "variant by name": (BOTH, {"variant": "cpu-bf16"}, [("cpu-bf16", "openvino", "cpu")]),
    "runtime by name": (BOTH, {"runtime": "onnxruntime"}, [("portable-fp32", "onnxruntime", "cpu")]),
}


@pytest.mark.parametrize(("runtimes", "asked", "expected"), CHOICES.values(), ids=CHOICES)
def test_candidates_stand_in_order_of_preference(
    runtimes: list[RuntimeInfo], asked: dict[str, Any], expected: list[tuple[str, str, str]]
) -> None:
    found = select_variant(BUNDLE, **asked, runtimes=runtimes)
    assert [(candidate.variant.name, candidate.runtime, candidate.device) for candidate in found] == expected


REFUSALS: dict[str, tuple[list[RuntimeInfo], Manifest, dict[str, str], type[Exception], str]] = {
    "unknown runtime": (BOTH, BUNDLE, {"runtime": "torch"}, ValueError, "auto, openvino, onnxruntime, .*got 'torch'"),
    "unknown device": (BOTH, BUNDLE, {"device": "tpu"}, ValueError, "got 'tpu'"),
    "unknown precision": (BOTH, BUNDLE, {"precision": "f32"}, ValueError, "fp32, fp16, bf16, int8, got 'f32'"),
    "precision that the bundle lacks": (
        BOTH,
        manifest(INT8, FP32),
        {"precision": "fp16"},
        ValueError,
        r"no variant in fp16: it has cpu-int8 \(int8, openvino on cpu\), portable-fp32",
    ),
    "variant that the bundle lacks": (
        BOTH,
        manifest(INT8, FP32),
        {"variant": "cpu-fp16"},
        ValueError,
        r"no variant 'cpu-fp16': it has cpu-int8 \(int8, openvino on cpu\), portable-fp32",
    ),
    "variant and precision that exclude each other": (
        BOTH,
        manifest(INT8, FP32),
        {"variant": "cpu-int8", "precision": "fp32"},
        ValueError,
        "no variant 'cpu-int8' in fp32: it has cpu-int8",
    ),
    "runtime that the bundle lacks": (
        BOTH,
        manifest(INT8),
        {"runtime": "onnxruntime"},
        ValueError,
        "nothing for onnxruntime: it has cpu-int8",
    ),
    "runtime that is not installed": (
        ORT,
        BUNDLE,
        {"runtime": "openvino"},
        MissingDependencyError,
        r"pip install 'posesdk\[openvino\]'",
    ),
    "nothing that is installed": (ORT, manifest(INT8), {}, MissingDependencyError, "runs with openvino"),
    "a runtime of the future": (BOTH, manifest(LATER), {}, MissingDependencyError, "hailort.*upgrade posesdk"),
    "a runtime for another device": (BOTH, manifest(ENGINE), {}, MissingDependencyError, "pip install tensorrt"),
    "device that the bundle lacks": (
        BOTH,
        BUNDLE,
        {"device": "npu"},
        DeviceUnavailableError,
        r"cannot run on npu .* ask for one of these",
    ),
    "device that the runtime lacks": (
        BOTH,
        BUNDLE,
        {"device": "0", "runtime": "openvino"},
        DeviceUnavailableError,
        "cannot run on cuda:0 with openvino: it has",
    ),
    "variant for a device that is not there": (
        ORT,
        manifest(CUDA_ONLY, FP32),
        {"variant": "cuda-fp16"},
        DeviceUnavailableError,
        "cannot run on cpu with onnxruntime as cuda-fp16: it has cuda-fp16",
    ),
    "the advice is a command for each backend": (
        machine(openvino=("cpu",)),
        manifest(CUDA_ONLY),
        {},
        MissingDependencyError,
        r"install it with `pip install onnxruntime`; TensorRT: \S+",
    ),
    "precision whose runtime is not installed": (
        ORT,
        BUNDLE,
        {"precision": "int8"},
        MissingDependencyError,
        r"runs with openvino, .*pip install 'posesdk\[openvino\]'",
    ),
    "precision that only a missing runtime has here": (
        ORT,
        manifest(INT8, INT8.model_copy(update={"name": "gpu-int8", "runtime": ("onnxruntime",), "devices": ("cuda",)})),
        {"precision": "int8"},
        MissingDependencyError,
        r"runs cpu-int8 on cpu with openvino only, .*pip install 'posesdk\[openvino\]'",
    ),
    "precision that the runtime lacks": (
        BOTH,
        BUNDLE,
        {"runtime": "onnxruntime", "precision": "bf16"},
        DeviceUnavailableError,
        "in precision bf16",
    ),
}


@pytest.mark.parametrize(("runtimes", "bundle", "asked", "error", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_had_is_refused_with_what_can(
    runtimes: list[RuntimeInfo], bundle: Manifest, asked: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        select_variant(bundle, **asked, runtimes=runtimes)


def test_without_a_listing_this_machine_is_asked() -> None:
    found = select_variant(manifest(FP32), device="cpu")
    assert {candidate.device for candidate in found} == {"cpu"}


@pytest.mark.parametrize("first", [ORIN, CARD], ids=lambda variant: str(variant.name))
@pytest.mark.parametrize(("jetson", "preferred"), [(True, "jetson-fp16"), (False, "cuda-fp16")])
def test_what_was_made_for_this_kind_of_nvidia_device_stands_first(
    first: Variant, jetson: bool, preferred: str
) -> None:
    second = CARD if first is ORIN else ORIN
    runtimes = machine(tensorrt=("cuda",), onnxruntime=("cpu", "cuda"))
    found = select_variant(manifest(first, second, FP32), runtimes=runtimes, jetson=jetson)
    names = [candidate.variant.name for candidate in found]
    assert names[0] == preferred
    assert sorted(names[:2]) == ["cuda-fp16", "jetson-fp16"]
    assert names[2:] == ["portable-fp32", "portable-fp32"]  # on the GPU and on the CPU


def test_what_was_made_for_the_other_kind_is_used_where_there_is_nothing_else() -> None:
    runtimes = machine(tensorrt=("cuda",), onnxruntime=("cpu", "cuda"))
    found = select_variant(manifest(ORIN, FP32), device="cuda", runtimes=runtimes, jetson=False)
    assert [candidate.variant.name for candidate in found] == ["jetson-fp16", "portable-fp32"]


def test_a_jetson_is_known_by_its_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runtimes = machine(tensorrt=("cuda",))
    for sign, preferred in ((tmp_path, "jetson-fp16"), (tmp_path / "none", "cuda-fp16")):
        monkeypatch.setattr(registry, "JETSON_SIGNS", (tmp_path / "not there", sign))
        found = select_variant(manifest(CARD, ORIN), runtimes=runtimes)
        assert found[0].variant.name == preferred
