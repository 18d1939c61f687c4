"""Poses of people who are anywhere."""

import numpy as np

from posesdk.poses import FrameInfo, Poses
from posesdk.skeleton import COCO_17, Skeleton

HAND = Skeleton(name="two-fingers", keypoints=("thumb", "index"), edges=((0, 1),), sigmas=(0.1, 0.2))


def random_poses(count=2, width=1280, height=720, skeleton=COCO_17, *, margin=0, **changes):
    """`count` is the seed, too; keypoints may be `margin` pixels outside of the frame."""
    rng = np.random.default_rng(count)
    limits = (-margin, -margin), (width + margin, height + margin)
    values = {
        "keypoints": rng.uniform(*limits, (count, len(skeleton), 2)),
        "keypoint_scores": rng.uniform(size=(count, len(skeleton))),
        "scores": rng.uniform(size=count),
        "image_size": (height, width),
        "skeleton": skeleton,
        "model": "tiny",
        "keypoint_threshold": 0.25,
        "frame": FrameInfo("cam0", 12, 0.48),
        "timing": {"preprocess": 1.5, "trunk": 20.25},
    }
    return Poses(**{**values, **changes})
