"""Prints of how many labelled persons head and body centers are known, and by which step of the ladder.

    python scripts/center_coverage.py ANNOTATIONS... [--skeleton coco-17]

The steps are those of `posesdk_training.data.anatomical_centers`.
"""

import argparse
from pathlib import Path

import numpy as np

from posesdk.skeleton import SKELETONS
from posesdk_training.data.anatomical_centers import BODY, HEAD, anatomical_centers, center_rules
from posesdk_training.data.coco import load_keypoint_set
from posesdk_training.settings.data import DatasetConfig

STEPS = {
    "a": "body: shoulders and hips (a)",
    "b": "body: both shoulders (b)",
    "c": "body: both hips (c)",
    "d": "body: all that is labelled (d)",
    "": "no body",
}


def main() -> None:
    """Reads the annotation files and prints one table for all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("annotations", type=Path, nargs="+")
    parser.add_argument("--skeleton", choices=sorted(SKELETONS), default="coco-17")
    arguments = parser.parse_args()
    skeleton = SKELETONS[arguments.skeleton]
    persons = [
        person.keypoints
        for path in arguments.annotations
        for image in load_keypoint_set(
            DatasetConfig(name=path.stem, annotations=path, images=path.parent), skeleton
        ).images
        for person in image.persons
        if person.is_labelled and not person.is_crowd
    ]
    if not persons:
        parser.error("the files hold no person with labelled keypoints")
    found = anatomical_centers(np.stack(persons), center_rules(skeleton))
    print(f"{len(persons)} labelled persons")
    shares = {"head": found.valid[:, HEAD]}
    shares |= {title: found.steps == step for step, title in STEPS.items()}
    shares |= {"head and body": found.valid.all(1), "neither": ~found.valid.any(1)}
    shares |= {"strict, neither": ~found.valid[:, HEAD] & (found.steps != "a")}
    shares |= {"body known": found.valid[:, BODY]}
    for title, members in shares.items():
        print(f"{title:<32}{members.mean():7.1%}")


if __name__ == "__main__":
    main()
