"""Prints how far every backend is from recorded outputs of the published LOGO-CAP implementation.

    python scripts/parity_table.py REFERENCE

REFERENCE is the folder with tiny_weights_fp16.npz, tiny_A_default_decoder.npz and tiny_B_small_global.npz. Each row
runs the recorded network input through one path and compares all poses before the suppression: px in net coordinates,
and the pose score.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from posesdk.adapt import adapt_poses
from posesdk.decode import InitialPoses, average_flip, decode_center_offset
from posesdk.pipeline import Pipeline
from posesdk_converters.importers.logocap import ImportOptions, import_logocap
from posesdk_converters.onnx import export_adapt, export_trunk
from posesdk_runtimes.registry import open_runtime
from posesdk_training.checkpoint import load_weights
from posesdk_training.models.build import build_model
from posesdk_training.models.logocap import LogoCap
from posesdk_training.torch_runtime import torch_pipeline

Arrays = dict[str, NDArray[np.float32]]
CASES = {"A": ("tiny_A_default_decoder", 97, 16.0), "B": ("tiny_B_small_global", 17, 2.5)}


def load(path: Path) -> Arrays:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def build(weights: Arrays, window: int, sigma: float, folder: Path) -> LogoCap:
    path = folder / "tiny.pth"
    state = {key: torch.from_numpy(value) for key, value in weights.items()}
    torch.save({k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}, path)
    checkpoint = import_logocap(path, ImportOptions(short_side=64, global_window=window, gaussian_sigma=sigma))
    decode = checkpoint.spec.decode.model_copy(update={"nms_distance": 0.0})
    model = build_model(checkpoint.spec.model_copy(update={"decode": decode}))
    load_weights(model, checkpoint.state_dict, source=str(path))
    return model.eval()


def picture(arrays: Arrays, model: LogoCap) -> NDArray[np.uint8]:
    """The recorded network input as the BGR picture that needs no warping."""
    mean, std = (
        np.array(values, np.float32)[:, None, None] for values in (model.spec.input.mean, model.spec.input.std)
    )
    rgb = np.round((arrays["input"][0] * std + mean) * 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(rgb[..., ::-1])


def difference(keypoints: NDArray[np.float32], scores: NDArray[np.float32], wanted: Arrays) -> tuple[float, float]:
    order, expected = np.argsort(-scores), np.argsort(-wanted["final_scores"])
    shift = np.linalg.norm(keypoints[order] - wanted["final_poses"][expected][..., :2], axis=-1)
    return float(shift.max()), float(np.abs(scores[order] - wanted["final_scores"][expected]).max())


def numpy_decoder(arrays: Arrays, model: LogoCap) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The device-side decoder on the recorded maps."""
    spec = model.spec
    if len(arrays.get("heatmaps_raw", ())) == 2:
        heatmaps, offsets = average_flip(arrays["heatmaps_raw"], arrays["offsets_raw"], spec.skeleton)
    else:
        heatmaps, offsets = arrays["heatmaps"][0], arrays["offsets"][0]
    initial: InitialPoses = decode_center_offset(heatmaps, offsets, spec)
    keypoints, scores = adapt_poses(initial, heatmaps, arrays["kam_raw"], spec)
    return keypoints, scores.mean(axis=1)


def end_to_end(pipeline: Pipeline, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    found = pipeline.run(image)
    return found.keypoints, found.scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reference", type=Path)
    reference: Path = parser.parse_args().reference
    weights = load(reference / "tiny_weights_fp16.npz")
    print(f"{'path':34}{'case':6}{'largest px':>12}{'score':>12}")
    for case, (name, window, sigma) in CASES.items():
        arrays = load(reference / f"{name}.npz")
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model = build(weights, window, sigma, folder)
            image = picture(arrays, model)
            export_trunk(model, folder / "trunk.onnx")
            export_adapt(model, folder / "adapt.onnx")
            rows = {
                "numpy decoder on recorded maps": numpy_decoder(arrays, model),
                "torch, from the input": end_to_end(torch_pipeline(model), image),
            }
            for runtime in ("onnxruntime", "openvino"):
                trunk, adapt = (open_runtime(folder / f"{g}.onnx", runtime=runtime) for g in ("trunk", "adapt"))
                rows[f"{runtime}, from the input"] = end_to_end(Pipeline(model.spec, trunk, adapt), image)
        for title, found in rows.items():
            shift, score = difference(*found, arrays)
            print(f"{title:34}{case:6}{shift:12.2e}{score:12.2e}")


if __name__ == "__main__":
    main()
