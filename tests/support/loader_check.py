"""Whether GStreamer's loader of Python plugins works for this interpreter; where not, why its tests are skipped."""

import functools
import os
import shutil
import sys
from pathlib import Path

import pytest

from posesdk.gst import plugin_loader


def need_the_loader() -> None:
    """Skips the test, with what to install, where programs such as gst-launch-1.0 cannot load elements in Python."""
    reason = _why_not()
    if reason is not None:
        pytest.skip(reason)


@functools.cache
def _why_not() -> str | None:
    library = plugin_loader.loader_library()
    if library is None:
        return "needs GStreamer's loader of Python plugins: apt-get install gstreamer1.0-python3-plugin-loader"
    if shutil.which("gst-inspect-1.0") is None:
        return "needs gst-launch-1.0 and gst-inspect-1.0: apt-get install gstreamer1.0-tools"
    wanted, minor = plugin_loader.libpython_name(library) or "", f"3.{sys.version_info.minor}"
    if f"{minor}." not in wanted:
        return f"the loader of Python plugins is made for {wanted}, and this is Python {minor}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        trial = plugin_loader.try_loader(library)
    if trial is not None and trial.python is None:
        return (
            f"the loader of Python plugins does not start, often for want of {wanted}: apt-get install libpython3-dev"
        )
    return None
