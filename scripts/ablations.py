"""Trains and measures every ablation of LOGO-CAP's Tables 5, 6 and 7 at small scale, and prints the table.

    python scripts/ablations.py CHECKPOINT --data DATA --run runs/ablations [--steps 1000] [--only NAME ...]

Every row starts from the same trained center-offset network, the dense part of CHECKPOINT, with a fresh adaptation
branch, and trains everything for the same few steps of one recipe; only the named switches differ. A row that was
measured already is not trained again. AP is that of `posesdk-train evaluate` on coco_eval.
"""

import argparse
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posesdk_training.checkpoint import load_checkpoint
from posesdk_training.config import TrainConfig, load_config
from posesdk_training.evaluated_model import open_model
from posesdk_training.evaluation.measure import measure
from posesdk_training.train import fit

RECIPE = Path(__file__).resolve().parents[1] / "training/posesdk_training/recipes/logocap-nano.yaml"
FRESH = ("joints_mlp.", "transition_embedding.")
"""What the adaptation branch consists of: every row trains it from scratch."""
SCHEDULE = (
    "model.decode.center_threshold=0.05",
    "optimizer.learning_rate=0.001",
    "phases=[{mixture: {coco_a: 0.72, coco_b: 0.12, lspet: 0.1, no_people: 0.06}, sizes: {128: 0.7, 160: 0.3}}]",
)


@dataclass(frozen=True)
class Row:
    """One line of a table: what it is called there, its AP there in percent, and the switches that make it."""

    table: int
    name: str
    paper: float
    switches: tuple[str, ...] = ()


NO_REWEIGHING = "model.adaptation.reweigh_sigma=null"
BATCH_NORM = "model.adaptation.norm=batch"
NO_OKS = "loss.oks_factor=0"
ROWS = {
    "baseline": Row(5, "center-offset baseline", 60.0, ("model.adaptation.level=none", "phases.0.adaptation=false")),
    "a": Row(5, "(a) OKS loss", 66.1, (NO_REWEIGHING, BATCH_NORM)),
    "b": Row(5, "(b) reweighing", 67.6, (NO_OKS, BATCH_NORM)),
    "c": Row(5, "(c) OKS loss, reweighing", 69.0, (BATCH_NORM,)),
    "d": Row(5, "(d) OKS loss, attentive norm", 65.8, (NO_REWEIGHING,)),
    "e": Row(5, "(e) reweighing, attentive norm", 67.5, (NO_OKS,)),
    "f": Row(5, "(f) OKS loss, reweighing, attentive norm", 69.6),
    "local-7": Row(6, "7x7, 3+1 layers", 68.4, ("model.adaptation.local_size=7",)),
    "local-11-one": Row(6, "11x11, 1 layer", 68.8, ("model.adaptation.message_channels=[]",)),
    "local-15": Row(6, "15x15, 3+1 layers", 69.3, ("model.adaptation.local_size=15",)),
    "local-19": Row(6, "19x19, 3+1 layers", 69.0, ("model.adaptation.local_size=19",)),
    "kem": Row(7, "expansion maps alone", 59.4, ("model.adaptation.prior=kem",)),
    "kam": Row(7, "attraction maps alone, in the global window", 65.7, ("model.adaptation.prior=kam",)),
    "kam-local": Row(7, "attraction maps alone, in the local window", 65.7, ("model.adaptation.level=partial",)),
}
SHARED = ("model.adaptation.local_size=11",)
"""The paper's window; nano's own is 7x7."""


def dense_part(checkpoint: Path, folder: Path) -> Path:
    """The weights that every row starts from, as a file."""
    state = load_checkpoint(checkpoint).state_dict
    path = folder / "dense.pth"
    torch.save({key: value for key, value in state.items() if not key.startswith(FRESH)}, path)
    return path


def configured(row: Row, args: argparse.Namespace, start: Path) -> TrainConfig:
    """The run of one row."""
    general = (f"data.root={args.data}", f"steps={args.steps}", f"init_from={start}", *SCHEDULE, *SHARED)
    return load_config(RECIPE, (*general, *row.switches))


def measured(name: str, args: argparse.Namespace, start: Path) -> dict[str, Any]:
    """The report of one row, trained and evaluated where it is not yet there."""
    folder: Path = args.run / name
    path = folder / "report.json"
    if not path.exists():
        weights = fit(configured(ROWS[name], args, start), folder, accelerator=args.accelerator)
        with open_model(weights) as model:
            report, _ = measure(model, args.data / "coco_eval/keypoints.json", args.data / "coco_eval/images")
        path.write_text(json.dumps(report, indent=1))
        logging.info("%s: AP %.4f", name, report["stats"]["AP"])
    report = json.loads(path.read_text())
    return dict(report)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a trained logocap-nano (.safetensors)")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--accelerator", default="auto")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    args.run.mkdir(parents=True, exist_ok=True)
    start = dense_part(args.checkpoint, args.run)
    lines = ["| table | row | switches | AP | AP50 | APM | APL | AP of the paper |", "| --- " * 8 + "|"]
    for name in args.only:
        row, stats = ROWS[name], measured(name, args, start)["stats"]
        switches = "<br>".join(f"`{switch}`" for switch in row.switches) or "none"
        figures = " | ".join(f"{100 * stats[key]:.1f}" for key in ("AP", "AP50", "APM", "APL"))
        lines.append(f"| {row.table} | {row.name} | {switches} | {figures} | {row.paper} |")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
