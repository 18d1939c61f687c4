"""The middle of DECODER.md: from initial poses to refined ones, by whatever adaptation the model has."""

from collections.abc import Iterator
from typing import Any

__all__ = ["describe_refinement"]

Numbers = dict[str, Any]


def describe_refinement(numbers: Numbers) -> Iterator[str]:
    """The sections of the model of `decoder.json`, each with its title in the first line."""
    adaptation = numbers["adaptation"]
    if adaptation["uses_attraction"]:
        yield _context(numbers)
        yield _adapt(numbers)
    if adaptation["level"] == "full":
        yield _window(numbers)
        yield _filter(numbers)
        yield _peaks(numbers)
    else:
        yield _mesh_best(numbers) if adaptation["level"] == "partial" else _value_there()


def _context(numbers: Numbers) -> str:
    adaptation, depth = numbers["adaptation"], numbers["maps"]["embedding"]
    size, count = adaptation["local_size"], len(numbers["keypoints"])
    radius = size // 2
    steps = ", ".join(f"{step:.6g}" for step in adaptation["mesh_steps"])
    cell = "x / 4" if numbers["frame"] == "published" else "(x - 1.5) / 4"
    return f"""Local context: `initial_keypoints`, `embedding` -> `context` [N, {count * depth}, {size}, {size}]

Around each keypoint lies a square mesh of {size} x {size} points. Its step depends on the keypoint, in net px:

    step[k] = {steps}

Point (row j, column i) of keypoint k at (kx, ky) is x = kx + (i - {radius}) * step[k], y = ky + (j - {radius}) *
step[k]. The embedding [h, w, {depth}] is sampled (section "Bilinear sampling") at the cell position {cell} along its
width and the same of y along its height. Number c of that place goes to

    context[person, k * {depth} + c, j, i]"""


def _adapt(numbers: Numbers) -> str:
    size, count = numbers["adaptation"]["local_size"], len(numbers["keypoints"])
    return f"""adapt.tflite: `context` -> `attraction_maps` [N, {count}, {size}, {size}]

The file is made for one person: resize its input to [N, ...] and allocate the tensors again, or run it once for each
person. N = 0 is not run. Before anything else is done with them, the maps are clamped to 0 ... 1 (the golden ones are
as the network gives them). From here on A[k] is the clamped map of keypoint k of the person at hand."""


def _window(numbers: Numbers) -> str:
    adaptation = numbers["adaptation"]
    size, sigma = adaptation["global_size"], adaptation["gaussian_sigma"]
    radius = size // 2
    if sigma is None:
        weight = f"`gaussian` [{size}, {size}] is 1 everywhere in this model."
    else:
        weight = f"""`gaussian` [{size}, {size}] = exp(-((i - {radius})^2 + (j - {radius})^2) / (2 * {sigma:.9g}^2)),
and 0 where that is below {adaptation["gaussian_cutoff"]:.9g}."""
    return f"""Windows: `heatmaps`, `initial_keypoints` -> `window`, `gaussian`

For keypoint k, heatmap k is enlarged four times as in section 3, and sampled (section "Bilinear sampling", n = pixels
of the enlarged map) at {size} x {size} places one net px apart around the initial keypoint:

    window[k, j, i] = enlarged heatmap k at x = kx + (i - {radius}), y = ky + (j - {radius})

{weight} The window is multiplied by it; what follows calls the product W[k]. The golden `window`
is that of the first person, before the product."""


def _filter(numbers: Numbers) -> str:
    adaptation = numbers["adaptation"]
    if not adaptation["uses_attraction"]:
        return """Response: `window` -> `response`

This model uses no attraction maps: R[k] = W[k]. The golden `response` is that of the first person."""
    size = adaptation["local_size"]
    radius, last, area = size // 2, size - 1, size * size
    return f"""Response: `window`, `attraction_maps` -> `response`

Each window is convolved with the keypoint's own attraction map (a true convolution, the map is flipped), W being 0
outside:

    R[k, y, x] = 1/{area} * sum over v, u = 0 ... {last} of A[k, v, u] * W[k, y + {radius} - v, x + {radius} - u]

The golden `response` is R of the first person. This is the dearest step on the host: {area} products a pixel. Pixels
whose value can no longer be among the two largest need not be computed."""


def _peaks(numbers: Numbers) -> str:
    adaptation = numbers["adaptation"]
    best, second = adaptation["peak_weights"]
    radius = adaptation["global_size"] // 2
    kept = (
        "\nA keypoint whose map A[k] is nowhere above 0 has no response: it stays at its initial place, with value 0.\n"
        if adaptation["uses_attraction"]
        else ""
    )
    return f"""Sub-cell place: `response` -> `peak_positions`, `peak_values`, `refined_keypoints`

Take the largest value v1 of R[k], at (x1, y1), and the second largest v2, at (x2, y2): two different pixels, of equal
ones the first in reading order. `peak_positions` [N, K, 2, 2] is ((x1, y1), (x2, y2)), `peak_values` [N, K, 2].

    x     = kx + {best} * x1 + {second} * x2 - {radius}
    y     = ky + {best} * y1 + {second} * y2 - {radius}
    value = {best} * v1 + {second} * v2
{kept}
`refined_keypoints` [N, K, 2] are these (x, y) in net px. Where v1 and v2, or v2 and the third largest value, differ by
less than 2e-6 of v1, rounding decides, and another place is no fault."""


def _mesh_best(numbers: Numbers) -> str:
    size = numbers["adaptation"]["local_size"]
    return f"""Refined place: `attraction_maps` -> `refined_keypoints`

Take the largest value of A[k], at row j and column i, the first in reading order. `refined_keypoints` is the point of
the mesh there, x = kx + (i - {size // 2}) * step[k], y = ky + (j - {size // 2}) * step[k], and `value` is A[k, j, i]. A
keypoint whose map is nowhere above 0 stays at its initial place, with value 0."""


def _value_there() -> str:
    return """Values: `heatmaps`, `initial_keypoints` -> `refined_keypoints`

This model does not move keypoints: `refined_keypoints` are the initial ones. `value` of keypoint k is heatmap k,
enlarged four times as in section 3, sampled (section "Bilinear sampling", n = pixels of the enlarged map) there."""
