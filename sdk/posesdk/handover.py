"""The hand-over of a mobile bundle: all that an app in another language needs to find the same poses.

A folder with the two .tflite files, the manifest, DECODER.md (the decoder in words, formulas and this model's numbers),
decoder.json (the numbers alone) and golden/ (every tensor between one picture and its poses).
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posesdk.adapt import PEAK_WEIGHT, uses_attraction
from posesdk.bundle import Bundle
from posesdk.context import MESH_SIGMA
from posesdk.handover_text import describe_decoder
from posesdk.handover_trace import Tensors, trace_picture
from posesdk.manifest import MANIFEST_NAME, Variant, dump_manifest
from posesdk.outputs import writing
from posesdk.pipeline import open_pipeline
from posesdk.preprocess import AREA_SCALE, Letterbox
from posesdk.spec import STRIDE, ModelSpec
from posesdk.variants import Candidate
from posesdk.windows import GAUSSIAN_CUTOFF
from posesdk_runtimes.errors import BundleError, PoseSDKError

__all__ = ["decoder_numbers", "find_mobile_variant", "write_description", "write_handover"]

RUNTIME = "tflite"


def find_mobile_variant(bundle: Bundle, precision: str = "auto") -> Variant:
    """The bundle's first variant for LiteRT, of that precision if it is named. Raises ValueError if it has none."""
    for variant in bundle.manifest.variants:
        if RUNTIME in variant.runtime and precision in ("auto", variant.precision):
            return variant
    has = ", ".join(f"{variant.name} ({variant.precision})" for variant in bundle.manifest.variants)
    wanted = "" if precision == "auto" else f" in {precision}"
    raise ValueError(
        f"bundle {bundle.path} has nothing for {RUNTIME}{wanted}: it has {has}; convert with --target mobile"
    )


def write_handover(bundle: Bundle, output: Path, *, precision: str = "auto") -> Path:
    """Writes the hand-over into a new or empty folder and gives its path; the .tflite files are run to get the tensors.

    Mirror images are left out, whatever the model's `flip_test` says. Raises ValueError for a bundle without a mobile
    variant and for a model whose decoder is another one, BundleError for a bundle without a golden image, PoseSDKError
    for a folder that cannot be written, and MissingDependencyError without a LiteRT.
    """
    variant = find_mobile_variant(bundle, precision)
    _check_described(bundle.spec)
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise PoseSDKError(
            f"cannot write the hand-over into {output}: it exists and is not an empty folder; name another"
        )
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}-"))
    try:
        _fill(scratch, bundle, variant)
        with writing(output):
            if output.exists():
                output.rmdir()
            scratch.chmod(0o755)  # a temporary folder is for its maker alone
            scratch.replace(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return output


def _check_described(spec: ModelSpec) -> None:
    """Raises ValueError for a model whose decoder is not the one that the hand-over describes."""
    if (spec.method, spec.centers) != ("logocap", "single"):
        raise ValueError(
            f"the hand-over describes the decoder of LOGO-CAP with one center a person, but {spec.name} has method "
            f"{spec.method!r} and centers {spec.centers!r}; run such a bundle with posesdk itself"
        )


def decoder_numbers(spec: ModelSpec) -> dict[str, Any]:
    """The content of decoder.json; `spec` with its input fixed to one size."""
    adaptation, decode = spec.adaptation, spec.decode
    assert spec.input.size is not None
    height, width = spec.input.size
    return {
        "model": spec.name,
        "frame": spec.frame,
        "keypoints": list(spec.skeleton.keypoints),
        "input": {"height": height, "width": width, "area_scale": AREA_SCALE},
        "stride": STRIDE,
        "maps": {"height": height // STRIDE, "width": width // STRIDE, "embedding": spec.heads.embedding},
        "centers": {"threshold": decode.center_threshold, "max_people": decode.max_people},
        "adaptation": {
            "level": adaptation.level,
            "uses_attraction": uses_attraction(spec),
            "local_size": adaptation.local_size,
            "mesh_steps": [float(sigma / np.float32(MESH_SIGMA)) for sigma in spec.skeleton.sigma_array],
            "global_size": adaptation.global_size,
            "gaussian_sigma": None if adaptation.prior == "kam" else adaptation.reweigh_sigma,
            "gaussian_cutoff": GAUSSIAN_CUTOFF,
            "peak_weights": [PEAK_WEIGHT, 1 - PEAK_WEIGHT],
        },
        "suppression": {"distance": decode.nms_distance, "keypoints": decode.nms_keypoints},
        "thresholds": {"person": decode.score_threshold, "keypoint": decode.keypoint_threshold},
    }


def _fill(folder: Path, bundle: Bundle, variant: Variant) -> None:
    decode = bundle.spec.decode.model_copy(update={"flip_test": False})
    pipeline = open_pipeline(bundle, Candidate(variant, RUNTIME, "cpu"), decode)
    try:
        spec = _with_fixed_input(pipeline.spec, variant, bundle)
        letterbox, tensors = trace_picture(_golden_picture(bundle), pipeline)
    finally:
        pipeline.close()
    with writing(folder):
        for name, path in (("trunk", variant.trunk), ("adapt", variant.adapt)):
            if path is not None:
                (folder / f"{name}.tflite").write_bytes(bundle.read(path))
        (folder / MANIFEST_NAME).write_bytes(dump_manifest(bundle.manifest))
        write_description(folder, spec, letterbox, tensors)


def write_description(folder: Path, spec: ModelSpec, letterbox: Letterbox, tensors: Tensors) -> None:
    """Writes DECODER.md, decoder.json and golden/ into an existing folder; `spec` with its input fixed to one size."""
    numbers = decoder_numbers(spec)
    (folder / "decoder.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    (folder / "DECODER.md").write_text(describe_decoder(numbers, letterbox, tensors), encoding="utf-8")
    _write_tensors(folder / "golden", letterbox, tensors)


def _with_fixed_input(spec: ModelSpec, variant: Variant, bundle: Bundle) -> ModelSpec:
    if spec.input.size is None:
        raise BundleError(
            f"variant {variant.name} of bundle {bundle.path} has no input size, which an app needs; convert again with "
            "--input-size"
        )
    return spec


def _golden_picture(bundle: Bundle) -> NDArray[np.uint8]:
    golden = bundle.golden()
    if golden is None:
        raise BundleError(f"bundle {bundle.path} has no golden image; convert the checkpoint again")
    return golden.picture()


def _write_tensors(folder: Path, letterbox: Letterbox, tensors: Tensors) -> None:
    folder.mkdir()
    entries = []
    for name, tensor in tensors.items():
        stored = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        (folder / f"{name}.bin").write_bytes(stored.tobytes())
        entries.append({"name": name, "dtype": tensor.dtype.name, "shape": list(tensor.shape), "file": f"{name}.bin"})
    fitted = {"scale": letterbox.scale, "shift": [float(value) for value in letterbox.matrix[:, 2]]}
    content = {"letterbox": fitted, "tensors": entries}
    (folder / "index.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
