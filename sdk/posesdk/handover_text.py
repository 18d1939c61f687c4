"""DECODER.md of a hand-over: every step from a picture to poses, in words and formulas, with one model's numbers."""

from collections.abc import Iterator
from typing import Any

from posesdk.handover_refinement_text import describe_refinement
from posesdk.handover_trace import Tensors
from posesdk.preprocess import Letterbox

__all__ = ["describe_decoder"]

Numbers = dict[str, Any]


def describe_decoder(numbers: Numbers, letterbox: Letterbox, tensors: Tensors) -> str:
    """The text for the model of `decoder.json`; `letterbox` and `tensors` are those of its golden picture."""
    sections = [
        _title(numbers),
        *(f"## {index}. {text}" for index, text in enumerate(_steps(numbers, letterbox), start=1)),
        _golden(tensors),
    ]
    return "\n\n".join(section.strip() for section in sections) + "\n"


def _steps(numbers: Numbers, letterbox: Letterbox) -> Iterator[str]:
    yield _letterbox(numbers, letterbox)
    yield _trunk(numbers)
    yield _center_map()
    yield _centers(numbers)
    yield _initial(numbers)
    yield _sampling(numbers)
    yield from describe_refinement(numbers)
    yield _scores()
    yield _to_picture()
    yield _suppression(numbers)
    yield _thresholds(numbers)


def _title(numbers: Numbers) -> str:
    names = ", ".join(f"{index} {name}" for index, name in enumerate(numbers["keypoints"]))
    return f"""
# The decoder of {numbers["model"]}

From a picture to the keypoints of every person in it, for an implementation in any language. The numbers are those of
this model; `decoder.json` holds them for a program. `golden/` holds every tensor below for one picture, so that each
step can be checked alone: it takes the golden tensors of the steps before and must give those of its own.

* A point is (x, y) in pixels, (0, 0) the center of the top-left pixel, x to the right, y down. *Net px* are pixels of
  the network's input, *cells* are places of its output maps, one for {numbers["stride"]} x {numbers["stride"]} net px.
* Arrays are stored row by row, the last index runs fastest. Everything is computed in float32.
* K = {len(numbers["keypoints"])} keypoints: {names}. N is the number of persons.
* floor(x) is the largest whole number not above x; clamp(x, a, b) is a below a, b above b, else x.
"""


def _letterbox(numbers: Numbers, letterbox: Letterbox) -> str:
    height, width = numbers["input"]["height"], numbers["input"]["width"]
    picture_height, picture_width = letterbox.image_size
    shift_x, shift_y = letterbox.matrix[:, 2]
    if numbers["frame"] == "published":
        shifts = f"""    shift_x = {width} / 2 - scale * floor(W / 2 + 0.5)
    shift_y = {height} / 2 - scale * floor(H / 2 + 0.5)"""
        small = ""
    else:
        shifts = f"""    shift_x = ({width} - 1) / 2 - scale * (W - 1) / 2
    shift_y = ({height} - 1) / 2 - scale * (H - 1) / 2"""
        small = f"""
Where scale < {numbers["input"]["area_scale"]}, bilinear interpolation would skip pixels. The picture is shrunk first,
to h = max(round(H * scale), 1) and w = max(round(W * scale), 1) pixels: small pixel (i, j) is the mean of the picture
over the area [i * W/w, (i+1) * W/w) x [j * H/h, (j+1) * H/h), with partly covered pixels counted in part. The small
picture is then interpolated in place of the picture, at

    x_small = (x + 0.5) * w / W - 0.5         y_small = (y + 0.5) * h / H - 0.5

The shrink may be left to any library that averages areas (INTER_AREA in OpenCV)."""
    return f"""Letterbox: `picture` -> `image`

The picture has H x W pixels of RGB, 0 to 255. It keeps its proportions and lies in the middle of an input of
{height} x {width} (height x width); what it does not cover is 0 (black).

    scale   = min({height} / H, {width} / W)
{shifts}
    x_net   = scale * x + shift_x             y_net = scale * y + shift_y

`image` [1, {height}, {width}, 3] uint8 at net px (u, v) is the picture at x = (u - shift_x) / scale and
y = (v - shift_y) / scale, interpolated bilinearly between its four neighbours; a neighbour outside of the picture
counts as 0. Round to the nearest whole number. No mean or deviation is applied: that is inside the network.
{small}
The golden picture:

    H = {picture_height}   W = {picture_width}
    scale = {letterbox.scale:.9g}   shift_x = {shift_x:.9g}   shift_y = {shift_y:.9g}

Libraries round differently: a few levels of 255 at some pixels are no fault."""


def _trunk(numbers: Numbers) -> str:
    maps, count = numbers["maps"], len(numbers["keypoints"])
    height, width = maps["height"], maps["width"]
    return f"""trunk.tflite: `image` -> `heatmaps`, `offsets`, `embedding`

| tensor | shape | type | content |
| --- | --- | --- | --- |
| `image` | [1, {height * 4}, {width * 4}, 3] | uint8 | RGB |
| `heatmaps` | [1, {count + 1}, {height}, {width}] | float32 | one map a keypoint, the map of person centers last |
| `offsets` | [1, {2 * count}, {height}, {width}] | float32 | dx, dy of keypoint 0, dx, dy of 1, ..., in cells |
| `embedding` | [1, {height}, {width}, {maps["embedding"]}] | float32 | {maps["embedding"]} numbers a cell |

Take inputs and outputs by their names in the signature `serving_default`: their order in the file is not fixed. A file
whose tensors are int8 says so in their quantization parameters: real = (stored - zero_point) * scale."""


def _center_map() -> str:
    return """Center map at net resolution: `heatmaps` -> `center_map`

The last of the heatmaps, M [h, w], is enlarged four times, to [4h, 4w], bilinearly, with its border repeated. For pixel
p along an axis of n cells:

    t = clamp((p + 0.5) / 4 - 0.5, 0, n - 1)      low = floor(t)      high = min(low + 1, n - 1)      f = t - low
    value = (1 - f) * M[low] + f * M[high]

first along one axis, then along the other."""


def _centers(numbers: Numbers) -> str:
    centers = numbers["centers"]
    border = (
        ""
        if numbers["frame"] == "published"
        else "* it is not in the first or last row or column: the repeated border would make false peaks there.\n"
    )
    return f"""Person centers: `center_map` -> `centers` [N, 2], `center_scores` [N]

A pixel is a center where all of this holds:

* its value is not below any of its (up to eight) neighbours,
* its value is above 0 and at least {centers["threshold"]:.9g},
{border}
The highest come first, equal ones in reading order (row by row); at most {centers["max_people"]} are kept. If no pixel
is a center, the largest value of the whole map is taken as the only one (border included, the first in reading order),
provided that it is above 0. `centers` are (x, y) in net px, `center_scores` the values."""


def _initial(numbers: Numbers) -> str:
    if numbers["frame"] == "published":
        formula = """    x = (center_x / 4 - dx) * 4               y = (center_y / 4 - dy) * 4"""
    else:
        formula = """    x = (cell_x - dx) * 4 + 1.5               y = (cell_y - dy) * 4 + 1.5"""
    return f"""Initial poses: `offsets`, `centers` -> `initial_keypoints` [N, K, 2]

An offset is center minus keypoint. It is read at the cell that holds the center, cell = floor(center / 4), without
interpolation: dx = offsets[0, 2k, cell_y, cell_x], dy = offsets[0, 2k + 1, cell_y, cell_x].

{formula}

in net px. Keypoints may lie outside of the picture."""


def _sampling(numbers: Numbers) -> str:
    if numbers["frame"] == "published":
        weights = """    weight of high = clamp(t - low, 0, 1)     weight of low = clamp(high - t, 0, 1)

The weights do not always add up to 1: between the last sample and one step beyond it the value falls to 0 and rises
again. That is what the model was trained with."""
    else:
        weights = """    weight of high = clamp(t - low, 0, 1)     weight of low = 1 - weight of high

Beyond either end this gives the sample at that end."""
    return f"""Bilinear sampling, used below

Along an axis of n samples, at position t (any real number):

    low = clamp(floor(t), 0, n - 1)           high = min(low + 1, n - 1)
{weights}

In two dimensions the weights of both axes are multiplied, and four samples are added."""


def _scores() -> str:
    return """Scores: `center_scores` -> `refined_scores` [N, K]

    refined_scores[person, k] = value[k] * center_scores[person]
    score[person]             = mean of refined_scores[person] over its K keypoints

Persons with a score of 0 or below are dropped; the order stays."""


def _to_picture() -> str:
    return """Back to the picture

    x = (x_net - shift_x) / scale             y = (y_net - shift_y) / scale

The points are not clamped: they may lie outside of the picture."""


def _suppression(numbers: Numbers) -> str:
    suppression, people = numbers["suppression"], numbers["centers"]["max_people"]
    count = len(numbers["keypoints"])
    if not (suppression["distance"] > 0 and suppression["keypoints"] < count):
        return "Persons found twice\n\nNothing is done about them in this model."
    return f"""Persons found twice

The diagonal of a pose is sqrt(width^2 + height^2) of the smallest box around its K keypoints. Person j is *near* person
i when more than {suppression["keypoints"]} of the K distances between equal keypoints of both are smaller than
{suppression["distance"]:.9g} times the diagonal of i. So every person is near itself, unless it has no extent: near
such a one is nobody.

Go through the persons i in order. Skip those that are settled and those that nobody is near. Among all persons near i,
settled or not, take the one with the highest score (the first of equal ones). Keep it unless it is settled already.
Then all persons near i are settled. Whoever was not kept is dropped; of more than {people} the best {people} stay."""


def _thresholds(numbers: Numbers) -> str:
    thresholds = numbers["thresholds"]
    return f"""What is shown: `keypoints` [M, K, 2], `keypoint_scores` [M, K], `scores` [M]

Persons with a score of at least {thresholds["person"]:.9g}, the best first, equal ones in the order in which they were
kept. A keypoint counts as visible where its score is at least {thresholds["keypoint"]:.9g}; the others keep their
coordinates. Both thresholds belong to this model and may be moved: higher ones show less."""


def _golden(tensors: Tensors) -> str:
    rows = "\n".join(f"| `{name}` | {list(tensor.shape)} | {tensor.dtype.name} |" for name, tensor in tensors.items())
    return f"""## golden/

`index.json` lists the tensors of one picture: name, type, shape and file (raw numbers, little-endian), and the scale
and shift of its letterbox. `window` and `response` are those of the first person alone.

| tensor | shape | type |
| --- | --- | --- |
{rows}

The two networks round differently on another processor, in their last digits in float32 and by single steps in int8.
All other steps, fed with golden tensors, give the golden ones to about 1e-4; `keypoints` to 1e-3 pixels."""
