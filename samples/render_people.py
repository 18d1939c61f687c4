"""Renders a picture of people, with their true keypoints: render_people.py --seed 1 --people 3 --output people.png."""

import argparse
from pathlib import Path

import cv2

from posesdk_converters.rendering.render import render_people


def main() -> None:
    parser = argparse.ArgumentParser(description="Render a picture of people by ray casting.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("people.png"))
    options = parser.parse_args()
    rendering = render_people(options.seed, people=options.people)
    cv2.imwrite(str(options.output), rendering.image)
    print(f"{options.output}: {len(rendering.keypoints)} people")


if __name__ == "__main__":
    main()
