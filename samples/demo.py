"""What `make demo` runs: finds the people in a photo and in a rendered picture, and draws them."""

from pathlib import Path

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from posesdk import Detector
from posesdk_converters.rendering.render import render_people

OUTPUT = Path("demo-output")

Image = NDArray[np.uint8]


def pictures() -> dict[str, Image]:
    """A photo that comes with scikit-image and a picture of three people that our own renderer makes; BGR."""
    astronaut = cv2.cvtColor(skimage.data.astronaut(), cv2.COLOR_RGB2BGR)
    return {"astronaut": np.asarray(astronaut, np.uint8), "rendered": render_people(seed=1, people=3).image}


def main() -> None:
    OUTPUT.mkdir(exist_ok=True)
    with Detector() as detector:
        for name, image in pictures().items():
            poses = detector(image)
            path = OUTPUT / f"{name}.png"
            cv2.imwrite(str(path), poses.draw(image))
            people = "1 person" if len(poses) == 1 else f"{len(poses)} people"
            print(f"{name}: {people} found, drawn in {path.resolve()}")


if __name__ == "__main__":
    main()
