"""Trains methods side by side on one short schedule, and prints what every step of DAC's Table 6 gives.

    python scripts/dual_centers_ladder.py CHECKPOINT --data DATA --run runs/ladder [--only NAME ...] [--steps 10000]
        [--scales 1 2] [--set KEY=VALUE ...]

All trainings start from the backbone of CHECKPOINT, a logocap-nano, with fresh heads, and follow the recipe
logocap-nano-short. What was trained or measured already is not done again: it stands in the folder of the run. Figures
are those of `posesdk-train evaluate` on coco_eval, without flip; input sizes are in parts of the model's own.
"""

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posesdk_training.config import load_config
from posesdk_training.evaluated_model import Level, PoseNets, open_model
from posesdk_training.evaluation.boxes import AREA_MODES
from posesdk_training.evaluation.measure import Measurement, measure
from posesdk_training.train import fit

RECIPE = Path(__file__).resolve().parents[1] / "training/posesdk_training/recipes/logocap-nano-short.yaml"
DAC = ("model=dac-nano",)
RANGES = ("area_range: [0, 4096]", "area_range: [1024, null]")
"""Persons of the 8x and the 2x branch, as in the recipe dac-nano."""


def branches(finer: str = "", coarser: str = "") -> str:
    """The override for three branches, each with settings of its own."""
    return f"branches=[{{name: 8x, {RANGES[0]}{finer}}}, 4x, {{name: 2x, {RANGES[1]}{coarser}}}]"


TRAININGS: dict[str, tuple[str, ...]] = {
    "logocap": (),
    "logocap-dual": ("model=logocap-nano-dual",),
    "dac-4x": DAC,
    "dac": (*DAC, branches()),
    "dac-zoom": (*DAC, branches(", zoom: 2.0", ", zoom: 0.5")),
    "dac-shared-stem": (*DAC, branches(", stem: 4x", ", stem: 4x")),
}
"""Switches of every training. The last two are the variants of multi-scale training."""


@dataclass(frozen=True)
class Row:
    """A training, measured with parts of it switched off, and the AP of the paper's Table 6 in percent."""

    name: str
    training: str
    adaptation: Level | None = None
    pose_nets: PoseNets | None = None
    paper: float | None = None


ROWS = (
    Row("single center", "logocap", adaptation="none", paper=62.4),
    Row("single center, local-global adaptation (LOGO-CAP)", "logocap"),
    Row("two centers", "dac-4x", pose_nets="none", paper=61.3),
    Row("two centers, pose networks", "dac-4x"),
    Row("two centers, local-global adaptation", "logocap-dual"),
    Row("+ multi-scale training", "dac", pose_nets="none", paper=62.8),
    Row("+ pose confidence", "dac", pose_nets="confidence", paper=63.6),
    Row("+ pose similarity", "dac", pose_nets="similarity", paper=64.0),
    Row("+ pose refinement (DAC)", "dac", paper=64.4),
    Row("multi-scale training, branch zoom", "dac-zoom", pose_nets="none"),
    Row("branch zoom, pose networks", "dac-zoom"),
    Row("multi-scale training, one stem (reading B)", "dac-shared-stem", pose_nets="none"),
    Row("one stem, pose networks", "dac-shared-stem"),
)


def trained(name: str, args: argparse.Namespace) -> Path:
    """The weights of a training."""
    folder: Path = args.run / name
    weights = folder / "last.safetensors"
    if (folder / "done").exists():
        return weights
    general = (f"data.root={args.data}", f"steps={args.steps}", f"init_from={args.checkpoint}")
    config = load_config(RECIPE, (*general, *TRAININGS[name], *args.set))
    weights = fit(config, folder, accelerator=args.accelerator)
    (folder / "done").touch()
    return weights


def measured(row: Row, scale: float, weights: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The report of a row at one input size."""
    parts = [
        f"x{scale:g}",
        row.adaptation and f"adaptation-{row.adaptation}",
        row.pose_nets and f"nets-{row.pose_nets}",
    ]
    path = weights.with_name("-".join(filter(None, ["report", *parts])) + ".json")
    if not path.exists():
        root = args.data / "coco_eval"
        what = Measurement(no_people=args.data / "no_people_eval/images")
        with open_model(weights, adaptation=row.adaptation, pose_nets=row.pose_nets, scales=(scale,)) as model:
            report, _ = measure(model, root / "keypoints.json", root / "images", what)
        path.write_text(json.dumps(report, indent=1))
        logging.info("%s at %g: AP %.4f", row.name, scale, report["stats"]["AP"])
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def cells(report: dict[str, Any]) -> list[str]:
    """The figures of a row: AP in percent, BBP and BBR by size for both meanings of the size."""
    figures = [f"{100 * report['stats'][key]:.1f}" for key in ("AP", "AP50", "APM", "APL")]
    for mode in AREA_MODES:
        boxes = next(one for one in report["boxes"] if one["area_mode"] == mode and one["expand"] == 0)
        for figure in ("bbp", "bbr"):
            figures.append(" / ".join(f"{boxes[figure].get(size, float('nan')):.1f}" for size in ("S", "M", "L")))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a trained logocap-nano (.safetensors)")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/ladder"))
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--only", nargs="+", choices=TRAININGS, default=list(TRAININGS), help="trainings to show")
    parser.add_argument("--scales", nargs="+", type=float, default=[1.0, 2.0])
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further settings of all trainings")
    parser.add_argument("--accelerator", default="auto")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    weights = {name: trained(name, args) for name in args.only}
    boxes = [f"{figure} S / M / L, {mode}" for mode in AREA_MODES for figure in ("BBP", "BBR")]
    for scale in args.scales:
        titles = ["row", "AP", "AP50", "APM", "APL", *boxes, "AP of the paper"]
        print(f"\nInput size x {scale:g}\n\n| {' | '.join(titles)} |\n{'| --- ' * len(titles)}|")
        for row in ROWS:
            if row.training in weights:
                report = measured(row, scale, weights[row.training], args)
                paper = "" if row.paper is None else f"{row.paper}"
                print(f"| {' | '.join([row.name, *cells(report), paper])} |", flush=True)


if __name__ == "__main__":
    main()
