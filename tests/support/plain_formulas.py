"""What the SDK computes by shortcuts, as the formulas stand: what its tests expect, and its benchmarks compare with."""

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
