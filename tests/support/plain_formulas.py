"""What the SDK computes by shortcuts, as the formulas stand: what its tests expect, and its benchmarks compare with."""

import cv2
import numpy as np

from posesdk.context import expansion_axes
from posesdk.decode import CELL_CENTER
from posesdk.sampling import bilinear_taps
from posesdk.spec import STRIDE


def local_context(keypoints, embedding, spec):
    """`posesdk.context.local_context` as a weighted sum of the four taps of every sample, one person at a time."""
    height, width, depth = embedding.shape
    count, size = spec.keypoint_count, spec.adaptation.local_size
    origin = np.float32(0 if spec.frame == "published" else CELL_CENTER)
    xs, ys = ((axis - origin) / np.float32(STRIDE) for axis in expansion_axes(keypoints, spec))
    rows = np.ascontiguousarray(embedding, np.float32).reshape(height * width, depth)
    context = np.empty((len(keypoints), count, depth, size, size), np.float32)
    for person, (x, y) in enumerate(zip(xs, ys, strict=True)):
        x_taps, y_taps = bilinear_taps(x, width, spec.frame), bilinear_taps(y, height, spec.frame)
        total = np.zeros((count, size, size, depth), np.float32)
        for y_cell, y_weight in y_taps:
            for x_cell, x_weight in x_taps:
                cells = rows[y_cell[:, :, None] * width + x_cell[:, None, :]]
                total += cells * (y_weight[:, :, None] * x_weight[:, None, :])[..., None]
        context[person] = total.transpose(0, 3, 1, 2)
    return context.reshape(len(keypoints), count * depth, size, size)


def warp_with_areas(image, net_size, matrix):
    """`posesdk.warping.warp_with_areas` by OpenCV alone."""
    (height, width), scale = image.shape[:2], matrix[0, 0]
    if scale < 0.5 or max(image.shape) > 32766:
        small = (max(round(height * scale), 1), max(round(width * scale), 1))
        growth = np.array([width / small[1], height / small[0]])
        matrix = matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ (growth - 1) / 2
        matrix[:, :2] *= growth
        image = cv2.resize(image, small[::-1], interpolation=cv2.INTER_AREA)
    net = cv2.warpAffine(image, matrix, net_size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    return cv2.cvtColor(net, cv2.COLOR_BGR2RGB)


def warp_in_float(image, net_size, matrix):
    """`posesdk.warping.warp_in_float`, the whole image along one axis after the other."""
    net = image[..., ::-1]
    for axis in (0, 1):
        positions = ((np.arange(net_size[axis]) - matrix[1 - axis, 2]) / matrix[1 - axis, 1 - axis]).astype(np.float32)
        low = np.floor(positions).astype(np.intp)
        parts = []
        for index, weight in ((low, 1 - (positions - low)), (low + 1, positions - low)):
            inside = (index >= 0) & (index < image.shape[axis])
            weight = np.where(inside, weight, 0).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
            parts.append(np.take(net, index.clip(0, image.shape[axis] - 1), axis=axis).astype(np.float32) * weight)
        net = parts[0] + parts[1]
    return np.rint(net).clip(0, 255).astype(np.uint8)
