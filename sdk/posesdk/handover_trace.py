"""Every tensor between a picture and its poses, one by one: what a decoder in another language is checked against."""

import numpy as np
from numpy.typing import NDArray

from posesdk.adapt import adapt_poses, uses_attraction
from posesdk.context import local_context
from posesdk.decode import InitialPoses, decode_center_offset, suppress_poses, upsample
from posesdk.pipeline import Pipeline
from posesdk.preprocess import Letterbox, make_letterbox
from posesdk.responses import convolve_windows, find_peaks
from posesdk.spec import ModelSpec
from posesdk.windows import reweighing_window, sample_windows

__all__ = ["Tensors", "trace_picture"]

FloatArray = NDArray[np.float32]
Tensors = dict[str, NDArray[np.generic]]


def trace_picture(image: NDArray[np.uint8], pipeline: Pipeline) -> tuple[Letterbox, Tensors]:
    """The tensors of an image (H, W, 3) uint8 BGR, by their names in DECODER.md, in the order in which they arise.

    `window` and `response` are those of the first person alone. Raises RuntimeFault when a backend fails.
    """
    spec = pipeline.spec
    letterbox = make_letterbox((image.shape[0], image.shape[1]), spec.input, spec.frame)
    net = letterbox.warp(image)[None]
    maps = pipeline.trunk.run({"image": net})
    heatmaps, offsets = maps["heatmaps"][0], maps["offsets"][0]
    initial = decode_center_offset(heatmaps, offsets, spec)
    tensors: Tensors = {
        "picture": np.ascontiguousarray(image[..., ::-1]),
        "image": net,
        "heatmaps": maps["heatmaps"],
        "offsets": maps["offsets"],
        "embedding": maps["embedding"],
        "center_map": upsample(heatmaps[spec.keypoint_count :])[0],
        "centers": initial.centers,
        "center_scores": initial.scores,
        "initial_keypoints": initial.keypoints,
    }
    attraction = _attraction(initial, maps["embedding"][0], pipeline, tensors)
    tensors |= _responses(initial, heatmaps, attraction, spec)
    keypoints, keypoint_scores = adapt_poses(initial, heatmaps, attraction, spec)
    tensors |= {"refined_keypoints": keypoints, "refined_scores": keypoint_scores}
    return letterbox, tensors | _chosen(keypoints, keypoint_scores, letterbox, spec)


def _attraction(
    initial: InitialPoses, embedding: FloatArray, pipeline: Pipeline, tensors: Tensors
) -> FloatArray | None:
    spec = pipeline.spec
    if pipeline.adapt is None or not uses_attraction(spec):
        return None
    context = local_context(initial.keypoints, embedding, spec)
    if len(initial):
        attraction: FloatArray = pipeline.adapt.run({"context": context})["attraction_maps"]
    else:
        attraction = np.zeros((0, spec.keypoint_count, *context.shape[2:]), np.float32)
    tensors |= {"context": context, "attraction_maps": attraction}
    return attraction


def _responses(initial: InitialPoses, heatmaps: FloatArray, attraction: FloatArray | None, spec: ModelSpec) -> Tensors:
    """The steps inside `adapt_poses` at level "full", person by person; nothing at the other levels."""
    adaptation = spec.adaptation
    if adaptation.level != "full":
        return {}
    gaussian, size = reweighing_window(adaptation), adaptation.global_size
    shape = (len(initial), spec.keypoint_count, 2)
    indices, values = np.zeros(shape, np.intp), np.zeros(shape, np.float32)
    first = {name: np.zeros((0, size, size), np.float32) for name in ("window", "response")}
    for person in range(len(initial)):
        window = sample_windows(initial.keypoints[person : person + 1], heatmaps, size, spec.frame)
        response = window * gaussian
        if attraction is not None:
            response = convolve_windows(response, attraction[person : person + 1].clip(0, 1))
        indices[person], values[person] = (found[0] for found in find_peaks(response))
        if person == 0:
            first = {"window": window[0], "response": response[0]}
    places = np.stack([indices % size, indices // size], axis=-1).astype(np.int32)  # (N, K, 2, 2)
    return {"gaussian": np.array(gaussian), **first, "peak_positions": places, "peak_values": values}


def _chosen(keypoints: FloatArray, keypoint_scores: FloatArray, letterbox: Letterbox, spec: ModelSpec) -> Tensors:
    """What is left of the persons, in pixels of the picture, best first."""
    scores = keypoint_scores.mean(axis=1)
    found = scores > 0
    points, keypoint_scores, scores = letterbox.to_image(keypoints[found]), keypoint_scores[found], scores[found]
    kept = suppress_poses(points, scores, spec.decode) if len(scores) else np.zeros(0, np.intp)
    kept = kept[scores[kept] >= np.float32(spec.decode.score_threshold)]
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    return {"keypoints": points[kept], "keypoint_scores": keypoint_scores[kept], "scores": scores[kept]}
