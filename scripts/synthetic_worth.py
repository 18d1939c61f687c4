"""Trains one model twice, with and without rendered people, and prints what they are worth on real photos.

    python scripts/synthetic_worth.py SYNTHETIC --data DATA --run runs/worth [--steps 6000] [--few]

SYNTHETIC is a folder of `posesdk-train synthesize`. Both arms are logocap-nano from scratch on the same schedule; in
the second one, rendered people take the place of 30 % of the real samples. With --few the 309 photos of keypoints_b
are the only labelled real ones. A finished arm is not trained again. AP is that of `posesdk-train evaluate` on
coco_eval.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import yaml

from posesdk_training.config import load_config
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.measure import measure
from posesdk_training.settings.recipe import find_recipe, read_recipe
from posesdk_training.train import fit

RENDERED = 0.3
SIZES = {128: 0.7, 160: 0.3}
REAL = {"coco_a": 0.5, "coco_b": 0.08, "lspet": 0.35, "no_people": 0.07}
FEW = {"coco_b": 0.93, "no_people": 0.07}


def recipe(args: argparse.Namespace, *, rendered: bool) -> dict[str, Any]:
    """The recipe's tree with the mixture of one arm."""
    tree = read_recipe(find_recipe("logocap-nano"))
    real = FEW if args.few else REAL
    mixture = {name: share * (1 - RENDERED) for name, share in real.items()} if rendered else dict(real)
    if rendered:
        folder = args.synthetic.resolve()
        entry = {"name": "synthetic", "annotations": str(folder / "keypoints.json"), "images": str(folder / "images")}
        tree["data"]["sets"].append(entry)
        mixture["synthetic"] = RENDERED
    phases = [{**phase, "mixture": mixture, "sizes": SIZES} for phase in tree["phases"]]
    return tree | {"phases": phases}


def arm(name: str, args: argparse.Namespace, *, rendered: bool) -> dict[str, Any]:
    """The report of one arm, trained and evaluated where it is not yet there."""
    folder: Path = args.run / name
    path = folder / "report.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "recipe.yaml"
        config.write_text(yaml.safe_dump(recipe(args, rendered=rendered), sort_keys=False))
        data = args.data.resolve()
        weights = fit(
            load_config(config, (f"data.root={data}", f"steps={args.steps}")), folder, accelerator=args.accelerator
        )
        with open_model(weights) as model:
            report, _ = measure(model, data / "coco_eval/keypoints.json", data / "coco_eval/images")
        path.write_text(json.dumps(report, indent=1))
    return dict(json.loads(path.read_text()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synthetic", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/worth"))
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--few", action="store_true")
    parser.add_argument("--accelerator", default="auto")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    kind = "few" if args.few else "all"
    names = (f"{kind}-real", f"{kind}-real-and-rendered")
    print("| arm | AP | AP50 | AR50 | APM | APL |", "| --- " * 6 + "|", sep="\n")
    for name, rendered in zip(names, (False, True), strict=True):
        stats = arm(name, args, rendered=rendered)["stats"]
        print(f"| {name} | " + " | ".join(f"{stats[key]:.4f}" for key in ("AP", "AP50", "AR50", "APM", "APL")) + " |")


if __name__ == "__main__":
    main()
