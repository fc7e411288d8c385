"""A robot with named joints and a camera: samples poses within its limits and renders them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cpp_ext import uniform
from runtime.errors import InputError
from runtime.robot.camera import Camera
from runtime.robot.scene import BACKGROUND, LIGHT, Scene
from runtime.robot.urdf import Urdf

OWN_URDF = Path(__file__).with_name("awase.urdf")
OWN_TABLE = -0.34  # metres: just below the reach of the hands

# Angles this far outside a limit (rad) are taken for rounding in a file or a network, and rendered as they are.
TOLERANCE = 1e-4

_CHUNK = 32  # frames a worker process renders at a time


class Robot:
    """A robot in the simulator. Its frames are a function of the joint angles alone, the same in every process.

    joints: names, in the order of the columns of `render` and `sample`. limits: float32 [D, 2] rad, from the URDF.
    camera: Camera. supersample: frames are rendered this many times larger and averaged down.
    """

    def __init__(
        self,
        urdf: str | Path | None = None,
        camera: Camera | None = None,
        joints: Sequence[str] | None = None,
        supersample: int = 2,
        table: float | None = None,
    ) -> None:
        """Open a URDF file, or our own robot for None, in the simulator and check that its camera sees it move.

        camera: None is the view from our own robot's head; a robot of your own needs one.
        joints: names of revolute joints with limits; None takes all of them.
        table: height of a table's surface in metres; None is no table (our own robot has one at OWN_TABLE).
        Raises InputError for an unreadable URDF, an unknown joint, one without limits, or a camera that sees nothing.
        """
        if urdf is None:
            self._open(Urdf.read(OWN_URDF), None, camera, joints, supersample, OWN_TABLE if table is None else table)
        else:
            path = Path(urdf)
            self._open(Urdf.read(path), path, camera, joints, supersample, table)
        self._check_view()

    def _open(
        self,
        urdf: Urdf,
        path: Path | None,
        camera: Camera | None,
        joints: Sequence[str] | None,
        supersample: int,
        table: float | None,
    ) -> None:
        if camera is None and path is not None:
            raise InputError(f"{urdf.source}: got no camera; say where it is: --camera position=X,Y,Z target=X,Y,Z")
        if supersample not in (1, 2, 3, 4):
            raise InputError(f"supersample: got {supersample}, expected 1, 2, 3 or 4")
        self.camera = camera or Camera()
        self.joints: tuple[str, ...] = urdf.movable() if joints is None else tuple(joints)
        if not self.joints:
            raise InputError(f"{urdf.source}: no joints to move, expected at least one revolute joint with limits")
        self.limits: NDArray[np.float32] = urdf.limits(self.joints)
        self.supersample, self.table = supersample, table
        self._urdf, self._path = urdf, path if urdf.files else None
        # Now, and not when it is asked for: the simulator reads the meshes now.
        self._meshes = urdf.files_sha256(path) if urdf.files and path is not None else None
        self._scene = Scene(urdf, self._path, self.joints, self.camera, supersample, table)

    def description(self) -> dict[str, Any]:
        """Everything the frames depend on, as plain JSON; `from_description` rebuilds the robot from it.

        `urdf` is the file's text, or None when it refers to meshes: then only `urdf_sha256` stands for it and
        `meshes_sha256`, which other robots' descriptions lack, for them.
        """
        return {
            "urdf": None if self._urdf.files else self._urdf.text,
            "urdf_sha256": hashlib.sha256(self._urdf.text.encode()).hexdigest(),
            "joints": list(self.joints),
            # The shortest decimals that give these float32 values: -0.3, not -0.30000001192…
            "limits": [[float(str(bound)) for bound in pair] for pair in self.limits],
            "unit": "rad",
            "camera": self.camera.to_json(),
            "table": self.table,
            "supersample": self.supersample,
            "light": dict(LIGHT),
            "background": list(BACKGROUND),
            "renderer": "pybullet TinyRenderer",
            "pybullet": importlib.metadata.version("pybullet"),
        } | ({"meshes_sha256": self._meshes} if self._meshes else {})

    @classmethod
    def from_description(cls, description: Mapping[str, Any], urdf: str | Path | None = None) -> Robot:
        """The robot that `description` came from. urdf: its file, needed only where that refers to meshes.

        Raises InputError when the file is needed and missing, it or a mesh of it is not what was recorded, or the
        description is unreadable.
        """
        robot = cls.__new__(cls)
        try:
            text, sha256 = description["urdf"], description["urdf_sha256"]
            camera, joints = Camera.from_json(description["camera"]), description["joints"]
            supersample, table = description["supersample"], description["table"]
            meshes = description["meshes_sha256"] if text is None else None
        except (KeyError, TypeError) as error:
            raise InputError(f"robot description: cannot be read, lacks {error}; record it anew") from None
        if not (isinstance(text, str | None) and isinstance(joints, list | tuple) and isinstance(supersample, int)):
            raise InputError("robot description: urdf, joints or supersample are of another kind; record it anew")
        path = None
        if text is not None:
            parsed = Urdf(text, "the recorded URDF")
        elif urdf is None:
            raise InputError(
                "this robot's URDF refers to meshes and was not recorded; give the file: --robot FILE.urdf"
            )
        else:
            path = Path(urdf)
            parsed = Urdf.read(path)
        if hashlib.sha256(parsed.text.encode()).hexdigest() != sha256:
            raise InputError(f"{parsed.source}: not the URDF that was recorded (its sha256 is not {sha256[:12]}…)")
        robot._open(parsed, path, camera, joints, supersample, table)
        if robot._meshes != meshes:
            robot.close()
            raise InputError(f"{parsed.source}: its meshes are not those that were recorded; take the recorded ones")
        return robot

    def sample(self, count: int, seed: int, first: int = 0) -> NDArray[np.float32]:
        """Angles drawn evenly between the limits, float32 [count, D] rad; row k is a function of (seed, first + k)."""
        try:
            u = uniform(seed, first, count, len(self.joints))
        except ValueError as error:
            raise InputError(f"sample: {error}") from None
        lower, upper = self.limits.astype(np.float64).T
        angles = (lower + (upper - lower) * u).astype(np.float32)
        return np.clip(angles, self.limits[:, 0], self.limits[:, 1])

    def render(
        self,
        joints: ArrayLike,
        workers: int = 0,
        progress: Callable[[int], None] | None = None,
        allow_blank: bool = False,
    ) -> NDArray[np.uint8]:
        """Frames of the robot in the given poses, uint8 [N, H, W, 3].

        joints: [N, D] rad, within the limits (+- TOLERANCE). workers: number of processes, 0 renders in this one; the
        frames are the same, byte for byte. progress: called with the number of frames done so far.
        allow_blank: keep frames of a single colour, which the camera sees nothing in; else they are refused.
        Raises InputError for a wrong shape, an angle that is not finite or outside its limits, or a blank frame.
        """
        angles = self._check_angles(joints)
        frames = np.empty((len(angles), self.camera.height, self.camera.width, 3), np.uint8)
        done = 0
        with closing(self._chunks(angles, workers)) as chunks:  # whatever happens, the workers end with this block
            for chunk in chunks:
                frames[done : done + len(chunk)] = chunk
                blank = np.flatnonzero((chunk == chunk[:, :1, :1]).all(axis=(1, 2, 3)))
                if len(blank) and not allow_blank:
                    raise InputError(
                        f"frame {done + blank[0]} is blank: in that pose the camera sees nothing; move the camera, "
                        "or give the URDF a floor or a wall for it to see"
                    )
                done += len(chunk)
                if progress:
                    progress(done)
        return frames

    def close(self) -> None:
        """End the simulator; the robot cannot render afterwards."""
        self._scene.close()

    def __enter__(self) -> Robot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _chunks(self, angles: NDArray[np.float32], workers: int) -> Generator[NDArray[np.uint8], None, None]:
        parts = [angles[start : start + _CHUNK] for start in range(0, len(angles), _CHUNK)]
        workers = min(workers, len(parts))
        if workers <= 0:
            yield from (_frames(self._scene, part) for part in parts)
            return
        # spawn, not fork: a forked child would share the parent's threads' locks and pybullet's client.
        pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_start_worker,
            initargs=(self._urdf.text, self._path, self.joints, self.camera, self.supersample, self.table),
        )
        try:
            yield from pool.map(_render_in_worker, parts)
        except BrokenProcessPool:
            raise InputError(
                f"one of {workers} render processes died: out of memory, or a script without "
                f"`if __name__ == '__main__':` around its work; try workers=0"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)

    def _check_angles(self, joints: ArrayLike) -> NDArray[np.float32]:
        angles = np.asarray(joints, np.float32)
        if angles.ndim != 2 or angles.shape[1] != len(self.joints):
            raise InputError(f"joints: got shape {list(angles.shape)}, expected [N, {len(self.joints)}]")
        # A NaN fails both comparisons, so it counts as outside.
        inside = (angles >= self.limits[:, 0] - TOLERANCE) & (angles <= self.limits[:, 1] + TOLERANCE)
        if not inside.all():
            row, column = np.argwhere(~inside)[0]
            (lower, upper), name = self.limits[column], self.joints[column]
            raise InputError(
                f"joints: row {row}, {name}: got {angles[row, column]:g} rad, expected {lower:g} to {upper:g} rad"
            )
        return angles

    def _check_view(self) -> None:
        middle = self.limits.mean(axis=1)
        frame = self._scene.frame(middle.tolist())
        if (frame == frame[0, 0]).all():
            self.close()
            raise InputError(
                f"the camera sees nothing: a blank frame from {self.camera.position} to {self.camera.target}"
            )
        for column, angle in ((c, a) for c in range(len(self.joints)) for a in self.limits[c]):
            pose = middle.copy()
            pose[column] = angle
            if (self._scene.frame(pose.tolist()) != frame).any():
                return
        self.close()
        raise InputError(f"the camera sees no joint move ({', '.join(self.joints)}); point it at moving parts")


def _frames(scene: Scene, angles: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.stack([scene.frame(pose) for pose in angles.tolist()])


_worker_scene: Scene | None = None


def _start_worker(
    text: str, path: Path | None, joints: tuple[str, ...], camera: Camera, supersample: int, table: float | None
) -> None:
    global _worker_scene
    # A parent that is killed cannot end its workers, and they would wait for its work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends the others
    _worker_scene = Scene(Urdf(text, str(path)), path, joints, camera, supersample, table)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _render_in_worker(angles: NDArray[np.float32]) -> NDArray[np.uint8]:
    assert _worker_scene is not None
    return _frames(_worker_scene, angles)
