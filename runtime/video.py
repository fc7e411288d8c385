"""Video files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from runtime.errors import InputError

if TYPE_CHECKING:
    import cv2

CODECS = {".mp4": "mp4v", ".avi": "MJPG"}


class Video:
    """Writes frames to a video. As a context manager it keeps the file if the block ends well, else it leaves none.

    Args:
        path: its file, .mp4 or .avi, which is replaced when all frames are written (what a link points to, not the
            link).
        rate: frames a second.
        option: what asked for it, for messages.

    Raises:
        InputError: it cannot be written there.
    """

    def __init__(self, path: Path, rate: float, option: str = "--out") -> None:
        self.path, self.rate, self._what = path, rate, f"{option} {path}"
        if path.suffix not in CODECS:
            raise InputError(f"{self._what}, expected a name that ends in {' or '.join(CODECS)}")
        self._place = Path(os.path.realpath(path))
        if not self._place.parent.is_dir() or (path.exists() and not path.is_file()):
            raise InputError(f"{self._what} cannot be written: expected a file in a folder that is there")
        # The suffix stays last, for OpenCV takes the container from it.
        self._part = self._place.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
        self._writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 [H, W, 3] RGB, all of one size.

        Raises:
            InputError: OpenCV cannot make such a video here.
        """
        import cv2

        if self._writer is None:
            codec, size = cv2.VideoWriter.fourcc(*CODECS[self.path.suffix]), frame.shape[1::-1]
            self._writer = cv2.VideoWriter(str(self._part), codec, self.rate, size)
            if not self._writer.isOpened():
                raise InputError(f"{self._what} cannot be written: OpenCV cannot make such a video here")
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def close(self, keep: bool) -> None:
        """End the video: it takes its place, or is removed.

        Raises:
            InputError: OpenCV wrote nothing.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            if keep:
                if not self._part.is_file() or not self._part.stat().st_size:
                    raise InputError(f"{self._what} cannot be written: OpenCV wrote nothing; is the disk full?")
                self._part.replace(self._place)
        finally:
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> Video:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=kind is None)
