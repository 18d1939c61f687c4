"""The compared models by short names."""

from collections.abc import Callable, Sequence
from pathlib import Path

from peers.finder import Finder
from peers.movenet import MoveNet
from peers.ours import open_ours
from peers.posenet import PoseNet
from peers.yolo import Yolo

__all__ = ["PEERS", "open_finders"]

PEERS: dict[str, Callable[[Path, int], Finder]] = {
    "yolo-640": lambda folder, threads: Yolo(folder, 640, threads=threads),
    "yolo-320": lambda folder, threads: Yolo(folder, 320, threads=threads),
    "yolo-320-tight": lambda folder, threads: Yolo(folder, 320, threads=threads, rectangle=True),
    "posenet": lambda folder, threads: PoseNet(folder, threads=threads),
    "movenet": lambda folder, threads: MoveNet(folder, threads=threads),
}


def open_finders(ours: Sequence[str], peers: Sequence[str], folder: Path, threads: int) -> dict[str, Finder]:
    """Bundles (`posesdk.shipped` names or paths, `:precision` at the end) and PEERS by name, ours first."""
    opened: dict[str, Finder] = {text: open_ours(text, threads=threads) for text in ours}
    return opened | {name: PEERS[name](folder, threads) for name in peers}
