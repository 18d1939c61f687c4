"""A window that shows drawn frames."""

import os
import sys

import cv2

from posesdk.draw import draw_poses
from posesdk.poses import Poses
from posesdk.video import Frame, FrameStream
from posesdk_runtimes.errors import DeviceUnavailableError, MissingDependencyError

__all__ = ["Window"]

TITLE = "posesdk"
QUIT_KEYS = (ord("q"), 27)
"""q and Escape."""


class Window:
    """Shows every frame: one of a video for a moment, a picture until a key is pressed.

    Raises DeviceUnavailableError without a screen, MissingDependencyError with an OpenCV that has no windows.
    """

    def __init__(self) -> None:
        if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise DeviceUnavailableError(
                "cannot show frames: there is no screen here; use --draw to write them instead"
            )
        try:
            cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise MissingDependencyError(
                "cannot show frames: this OpenCV has no windows; put opencv-python in place of opencv-python-headless, "
                "or use --draw to write them instead"
            ) from error
        self._closed = False

    def add(self, stream: FrameStream, frame: Frame, poses: Poses, everyone: Poses) -> None:
        """Shows one frame."""
        cv2.imshow(TITLE, draw_poses(frame.image, poses))
        key = cv2.waitKey(0 if stream.pictures else 1) & 0xFF
        self._closed = key in QUIT_KEYS

    def is_closed(self) -> bool:
        """Whether q or Escape was pressed."""
        return self._closed

    def close(self) -> None:
        """Closes the window."""
        cv2.destroyWindow(TITLE)
