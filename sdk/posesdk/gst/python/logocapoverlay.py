"""Shows GStreamer's Python plugin loader the element logocapoverlay; it reads one factory of each file."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))  # last: an installed posesdk comes first

from posesdk.gst.factories import FACTORIES

__gstelementfactory__ = FACTORIES[2]
