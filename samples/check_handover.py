"""Checks a hand-over (`posesdk handover`): the decoder, written anew from its DECODER.md with numpy alone.

    python samples/check_handover.py FOLDER

It takes the golden picture and the golden outputs of the two networks, does every other step itself, and compares. Read
it beside DECODER.md when you write the decoder in another language: the functions stand in the order of its sections.
"""

import json
import sys
from pathlib import Path

import numpy as np

LIMITS = {"image": 8, "keypoints": 1e-3, "centers": 0, "peak_positions": 0}
"""Largest difference that is allowed, where it is not DEFAULT_LIMIT."""
DEFAULT_LIMIT = 2e-4
TIE = 2e-6
"""Where the best pixels of a response differ by a smaller part, rounding decides, and their places may differ."""


def enlarge(maps: np.ndarray) -> np.ndarray:
    """Maps (..., h, w) at four times the size."""
    for axis in (-2, -1):
        count = maps.shape[axis]
        t = np.clip((np.arange(4 * count) + 0.5) / 4 - 0.5, 0, count - 1)
        low = np.floor(t).astype(int)
        high = np.minimum(low + 1, count - 1)
        f = (t - low).astype(np.float32).reshape((-1, 1) if axis == -2 else (1, -1))
        maps = (1 - f) * np.take(maps, low, axis) + f * np.take(maps, high, axis)
    return maps


def shrink_axis(picture: np.ndarray, axis: int, count: int) -> np.ndarray:
    """Mean over equal areas along an axis, partly covered pixels in part."""
    size = picture.shape[axis]
    edges = np.arange(count + 1) * size / count
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(covered, 0, 1) * count / size
    return np.moveaxis(np.tensordot(weights, picture, axes=(1, axis)), 0, axis)


def letterbox(picture: np.ndarray, decoder: dict) -> tuple[np.ndarray, float, np.ndarray]:
    """The network's input, the scale, and the shift (x, y)."""
    net = (decoder["input"]["width"], decoder["input"]["height"])
    size = (picture.shape[1], picture.shape[0])
    scale = min(net[0] / size[0], net[1] / size[1])
    if decoder["frame"] == "published":
        shift = [n / 2 - scale * np.floor(s / 2 + 0.5) for n, s in zip(net, size, strict=True)]
    else:
        shift = [(n - 1) / 2 - scale * (s - 1) / 2 for n, s in zip(net, size, strict=True)]
    image = picture.astype(np.float64)
    for axis in (0, 1):
        index = 1 - axis  # of x or y
        position = (np.arange(net[index]) - shift[index]) / scale
        if decoder["frame"] == "consistent" and scale < decoder["input"]["area_scale"]:
            small = max(round(size[index] * scale), 1)
            image = shrink_axis(image, axis, small)
            position = (position + 0.5) * small / size[index] - 0.5
        low = np.floor(position).astype(int)
        total = 0
        for place, weight in ((low, low + 1 - position), (low + 1, position - low)):
            inside = (place >= 0) & (place < image.shape[axis])
            weight = np.where(inside, weight, 0).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            total = total + weight * np.take(image, place.clip(0, image.shape[axis] - 1), axis)
        image = total
    return np.rint(image)[None], scale, np.array(shift)


def find_centers(center_map: np.ndarray, decoder: dict) -> tuple[np.ndarray, np.ndarray]:
    """Centers (N, 2) and their values (N,)."""
    height, width = center_map.shape
    padded = np.pad(center_map, 1, constant_values=-np.inf)
    around = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    peak = (center_map >= np.max(around, axis=0)) & (center_map > 0)
    peak &= center_map >= decoder["centers"]["threshold"]
    if decoder["frame"] == "consistent":
        peak[[0, -1]] = False
        peak[:, [0, -1]] = False
    places = np.flatnonzero(peak)
    if len(places) == 0 and center_map.max() > 0:
        places = np.array([center_map.argmax()])
    values = center_map.ravel()[places]
    best = np.argsort(-values, kind="stable")[: decoder["centers"]["max_people"]]
    return np.stack([places[best] % width, places[best] // width], axis=-1), values[best]


def initial_poses(offsets: np.ndarray, centers: np.ndarray, decoder: dict) -> np.ndarray:
    """Keypoints (N, K, 2)."""
    cells = centers // 4
    read = offsets[0][:, cells[:, 1], cells[:, 0]].T.reshape(len(centers), -1, 2)
    if decoder["frame"] == "published":
        return (centers[:, None] / 4 - read) * 4
    return (cells[:, None] - read) * 4 + np.float32(1.5)


def taps(t: np.ndarray, count: int, frame: str) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """The two indices and weights of bilinear sampling along an axis."""
    low = np.clip(np.floor(t), 0, count - 1)
    high = np.minimum(low + 1, count - 1)
    of_high = np.clip(t - low, 0, 1)
    of_low = np.clip(high - t, 0, 1) if frame == "published" else 1 - of_high
    return (low.astype(int), of_low), (high.astype(int), of_high)


def sample(values: np.ndarray, x: np.ndarray, y: np.ndarray, frame: str) -> np.ndarray:
    """`values` (h, w, ...) at the lattice of x (a,) and y (b,): (b, a, ...)."""
    total = 0
    for row, row_weight in taps(y, values.shape[0], frame):
        for column, column_weight in taps(x, values.shape[1], frame):
            weight = row_weight[:, None] * column_weight
            total = total + values[row[:, None], column] * weight.reshape(*weight.shape, *[1] * (values.ndim - 2))
    return total


def mesh(keypoint: np.ndarray, k: int, decoder: dict) -> tuple[np.ndarray, np.ndarray]:
    """x (n,) and y (n,) of the mesh around a keypoint."""
    size = decoder["adaptation"]["local_size"]
    steps = (np.arange(size) - size // 2) * decoder["adaptation"]["mesh_steps"][k]
    return keypoint[0] + steps, keypoint[1] + steps


def local_context(poses: np.ndarray, embedding: np.ndarray, decoder: dict) -> np.ndarray:
    """Input of the second network, (N, K*d, n, n)."""
    origin = 0 if decoder["frame"] == "published" else 1.5
    context = []
    for pose in poses:
        for k, keypoint in enumerate(pose):
            x, y = ((axis - origin) / 4 for axis in mesh(keypoint, k, decoder))
            context.append(sample(embedding[0], x, y, decoder["frame"]).transpose(2, 0, 1))
    size = decoder["adaptation"]["local_size"]
    return np.array(context).reshape(len(poses), -1, size, size)


def gaussian(decoder: dict) -> np.ndarray:
    """The weights of a window, (a, a)."""
    size, sigma = decoder["adaptation"]["global_size"], decoder["adaptation"]["gaussian_sigma"]
    squares = (np.arange(size) - size // 2) ** 2
    weights = np.exp(-(squares[:, None] + squares) / (2 * sigma**2)) if sigma else np.ones((size, size))
    return np.where(weights < decoder["adaptation"]["gaussian_cutoff"], 0, weights).astype(np.float32)


def convolve(window: np.ndarray, attraction: np.ndarray) -> np.ndarray:
    """R (a, a) of W (a, a) and A (n, n)."""
    size, radius, side = len(attraction), len(attraction) // 2, len(window)
    padded = np.pad(window, radius)
    total = np.zeros_like(window)
    for v in range(size):
        for u in range(size):
            shifted = padded[2 * radius - v :, 2 * radius - u :]
            total += attraction[v, u] * shifted[:side, :side]
    return total / (size * size)


def refine_in_window(keypoint: np.ndarray, large: np.ndarray, attraction: np.ndarray | None, decoder: dict) -> dict:
    """Level "full": the refined keypoint, its value, and what leads there."""
    adaptation = decoder["adaptation"]
    size = adaptation["global_size"]
    x, y = (coordinate + (np.arange(size) - size // 2) for coordinate in keypoint)
    window = sample(large, x, y, decoder["frame"]).astype(np.float32)
    response = window * gaussian(decoder)
    if attraction is not None:
        response = convolve(response, attraction)
    flat = response.ravel().copy()
    places, values = [], []
    for _ in range(3):
        best = int(flat.argmax())
        places.append([best % size, best // size])
        values.append(flat[best])
        flat[best] = -np.inf
    tied = min(values[0] - values[1], values[1] - values[2]) <= TIE * abs(values[0])
    places, values = places[:2], values[:2]
    weights = np.array(adaptation["peak_weights"])
    answered = attraction is None or attraction.max() > 0
    refined = keypoint + weights @ places - size // 2 if answered else keypoint
    steps = {"window": window, "response": response, "peak_positions": places, "peak_values": values}
    return {"refined": refined, "value": weights @ values, "tied": tied and answered, **steps}


def refine_on_mesh(keypoint: np.ndarray, k: int, attraction: np.ndarray, decoder: dict) -> dict:
    """Level "partial": the mesh point of the largest attraction."""
    x, y = mesh(keypoint, k, decoder)
    row, column = divmod(int(attraction.argmax()), decoder["adaptation"]["local_size"])
    value = attraction[row, column]
    return {"refined": [x[column], y[row]] if value > 0 else keypoint, "value": value}


def refine(poses: np.ndarray, golden: dict, decoder: dict) -> dict:
    """The refined keypoints (N, K, 2), their values (N, K), and the steps of level "full"."""
    adaptation, large = decoder["adaptation"], enlarge(golden["heatmaps"][0, :-1])
    maps = golden["attraction_maps"].clip(0, 1) if adaptation["uses_attraction"] else None
    done = []
    for person, k in np.ndindex(poses.shape[:2]):
        keypoint, attraction = poses[person, k], None if maps is None else maps[person, k]
        if adaptation["level"] == "full":
            done.append(refine_in_window(keypoint, large[k], attraction, decoder))
        elif adaptation["level"] == "partial":
            done.append(refine_on_mesh(keypoint, k, attraction, decoder))
        else:
            value = sample(large[k], keypoint[:1], keypoint[1:], decoder["frame"])[0, 0]
            done.append({"refined": keypoint, "value": value})
    found = {name: np.array([one[name] for one in done]) for name in (done[0] if done else ())}
    first = {name: found.pop(name)[: poses.shape[1]] for name in ("window", "response") if name in found}
    return {name: values.reshape(*poses.shape[:2], *values.shape[1:]) for name, values in found.items()} | first


def suppress(points: np.ndarray, scores: np.ndarray, decoder: dict) -> list[int]:
    """Indices of the persons that stay."""
    rule, people = decoder["suppression"], decoder["centers"]["max_people"]
    kept = list(range(len(scores)))
    if rule["distance"] > 0 and rule["keypoints"] < points.shape[1]:
        kept, settled = [], set()
        for i in range(len(scores)):
            diagonal = np.linalg.norm(points[i].max(axis=0) - points[i].min(axis=0))
            closer = np.linalg.norm(points - points[i], axis=2) < rule["distance"] * diagonal
            near = [j for j in range(len(scores)) if closer[j].sum() > rule["keypoints"]]
            if i in settled or not near:
                continue
            best = max(near, key=lambda j: scores[j])
            if best not in settled:
                kept.append(best)
            settled.update(near)
    return sorted(kept, key=lambda j: -scores[j])[:people]


def decode(golden: dict, decoder: dict) -> dict:
    """Every tensor of the hand-over but the networks' outputs, which are taken from `golden`."""
    found = {}
    found["image"], scale, shift = letterbox(golden["picture"], decoder)
    found["center_map"] = enlarge(golden["heatmaps"][0, -1])
    centers, found["center_scores"] = find_centers(found["center_map"], decoder)
    found["centers"] = centers
    found["initial_keypoints"] = initial_poses(golden["offsets"], centers, decoder).astype(np.float32)
    if decoder["adaptation"]["uses_attraction"]:
        found["context"] = local_context(found["initial_keypoints"], golden["embedding"], decoder)
    refined = refine(found["initial_keypoints"], golden, decoder)
    found["gaussian"] = gaussian(decoder)
    found["refined_keypoints"] = refined.pop("refined").astype(np.float32)
    found["refined_scores"] = refined.pop("value") * found["center_scores"][:, None]
    found |= refined
    scores = found["refined_scores"].mean(axis=1)
    kept = np.flatnonzero(scores > 0)
    points = (found["refined_keypoints"][kept] - shift) / scale
    stay = suppress(points, scores[kept], decoder)
    stay = [index for index in stay if scores[kept][index] >= decoder["thresholds"]["person"]]
    found["keypoints"] = points[stay]
    if "tied" in found:
        ties = found.pop("tied")
        found["ties"] = {"keypoints": ties[kept][stay], "refined_keypoints": ties, "peak_positions": ties}
    found["keypoint_scores"] = found["refined_scores"][kept][stay]
    found["scores"] = scores[kept][stay]
    return found


def main(folder: Path) -> int:
    decoder = json.loads((folder / "decoder.json").read_text("utf-8"))
    golden = {
        entry["name"]: np.fromfile(
            folder / "golden" / entry["file"], np.dtype(entry["dtype"]).newbyteorder("<")
        ).reshape(entry["shape"])
        for entry in json.loads((folder / "golden" / "index.json").read_text("utf-8"))["tensors"]
    }
    found = decode(golden, decoder)
    ties = found.pop("ties", {})
    results = [report(name, found[name], golden[name], ties.get(name)) for name in golden if name in found]
    return 0 if all(results) else 1


def report(name: str, found: np.ndarray, expected: np.ndarray, ties: np.ndarray | None) -> bool:
    """Prints one line; whether the tensor is what it should be."""
    limit, error, note = LIMITS.get(name, DEFAULT_LIMIT), np.inf, ""
    if found.shape == expected.shape:
        difference = np.abs(found - expected.astype(np.float64))
        if ties is not None and ties.any():
            difference = difference[~ties]
            note = f", {ties.sum()} of {ties.size} keypoints left out: equal within rounding"
        error = float(difference.max(initial=0))
    print(f"{'ok' if error <= limit else 'FAILED':8}{name}: off by {error:.2g} at most, allowed {limit}{note}")
    return error <= limit


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: check_handover.py FOLDER")
    sys.exit(main(Path(sys.argv[1])))
