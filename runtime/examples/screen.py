"""Where the examples' frames go: a window, a video file, or nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from runtime.errors import InputError
from runtime.video import Video


class Screen:
    """Shows frames in a window and writes them to a video, whichever is asked for.

    Args:
        rate: frames a second of the video.
        video: its file, .mp4 or .avi, which is replaced when all frames are written (what a link points to, not the
            link); None: none.
        window: the window's title; None: none.

    Raises:
        InputError: the video cannot be written, or OpenCV cannot open windows here.
    """

    def __init__(self, rate: float, video: Path | None = None, window: str | None = None) -> None:
        self.window = window
        self._video = Video(video, rate) if video else None
        if window:
            # Without a display some builds of OpenCV end the process instead of raising an error.
            shown = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
            try:
                if not shown:
                    raise InputError("no display to open a window on; give --out FILE.mp4 for a video")
                cv2.namedWindow(window, cv2.WINDOW_NORMAL)
            except cv2.error:
                raise InputError(
                    "this OpenCV has no windows (opencv-python-headless); give --out FILE.mp4 for a video, "
                    "or install opencv-python in its place"
                ) from None

    def show(self, frame: np.ndarray) -> bool:
        """Put out one frame, uint8 [H, W, 3] RGB, all of one size. False: the user pressed q or Esc in the window."""
        if self._video:
            self._video.write(frame)
        if self.window:
            cv2.imshow(self.window, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            return (cv2.waitKey(1) & 0xFF) not in (ord("q"), 27)
        return True

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.window:
            cv2.destroyWindow(self.window)
        if self._video:
            self._video.close(keep=kind is None or kind is KeyboardInterrupt)  # what was made until Ctrl-C is a video
