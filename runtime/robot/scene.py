"""The simulator's side of a robot: one pybullet client that turns joint angles into camera frames."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from runtime.robot.camera import Camera
from runtime.robot.urdf import Urdf

# No shadows: TinyRenderer's are jagged and cost a quarter of the speed.
LIGHT: dict[str, Any] = {
    "direction": [0.3, 0.5, 1.2],
    "color": [1.0, 1.0, 1.0],
    "ambient": 0.6,
    "diffuse": 0.45,
    "specular": 0.0,
    "shadow": False,
}
# Not TinyRenderer's own white, before which a robot without colours cannot be seen.
BACKGROUND = (168, 186, 204)
# Depth-buffer values from here on are where nothing was drawn (TinyRenderer leaves 1 - 2^-24 or 1 there).
_EMPTY = np.float32(0.9999999)
_TABLE_COLOR = (0.86, 0.84, 0.80, 1.0)


def import_pybullet() -> Any:
    """The pybullet module. Raises InputError when it is not installed."""
    try:
        with _fd_to_nothing(2):  # it announces its build time at import
            import pybullet
    except ImportError:
        raise InputError("the simulator needs pybullet; install it with: pip install awase[robot]") from None
    return pybullet


class Scene:
    """One robot, one camera, and behind them a plain background and perhaps a table.

    The table fills most of a view and would take half of the rendering time, though it never changes. So it lies in a
    pybullet client of its own, is rendered once for a camera that stays, and is joined to the robot by depth.
    """

    def __init__(
        self,
        urdf: Urdf,
        path: Path | None,
        joints: Sequence[str],
        camera: Camera,
        supersample: int,
        table: float | None,
    ) -> None:
        """path: the URDF's file, needed when it refers to meshes. table: height of its surface, metres, or None.

        Raises InputError when pybullet cannot load the URDF or the camera's link is unknown.
        """
        self._bullet = import_pybullet()
        self._camera, self._supersample = camera, supersample
        self._clients: list[int] = []
        try:
            self._client = self._connect()
            # It would keep meshes by their files' names, and so show the old one after a file has changed.
            self._call("setPhysicsEngineParameter", enableFileCaching=0)
            self._body = self._load(urdf, path)
            infos = [self._call("getJointInfo", self._body, i) for i in range(self._call("getNumJoints", self._body))]
            index = {info[1].decode(): info[0] for info in infos}
            self._joints = [index[name] for name in joints]
            self._link = self._find_link(urdf, {info[12].decode(): info[0] for info in infos})
            self._table = None if table is None else self._connect_table(table)
        except BaseException:
            self.close()
            raise
        aspect = camera.width / camera.height
        self._projection = self._bullet.computeProjectionMatrixFOV(camera.fov, aspect, camera.near, camera.far)
        self._fixed_view = self._bullet.computeViewMatrix(camera.position, camera.target, camera.up)
        self._backdrop: tuple[Sequence[float], NDArray[np.uint8], NDArray[np.float32]] | None = None

    def frame(self, angles: Sequence[float]) -> NDArray[np.uint8]:
        """Pose the joints (rad) and render: uint8 [H, W, 3], box-averaged from `supersample` times the size."""
        self._call("resetJointStatesMultiDof", self._body, self._joints, [[float(angle)] for angle in angles])
        view = self._view()
        pixels, depth = self._render(self._client, view)
        if self._backdrop is None or self._backdrop[0] != view:
            self._backdrop = (view, *self._render_backdrop(view))
        _, behind, behind_depth = self._backdrop
        pixels = np.where((depth < behind_depth)[..., None], pixels, behind)
        return _shrink(pixels[..., :3], self._supersample)

    def _render_backdrop(self, view: Sequence[float]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        s = self._supersample
        empty = np.full((self._camera.height * s, self._camera.width * s, 4), (*BACKGROUND, 255), np.uint8)
        if self._table is None:
            return empty, np.full(empty.shape[:2], _EMPTY)
        pixels, depth = self._render(self._table, view)
        return np.where((depth < _EMPTY)[..., None], pixels, empty), np.minimum(depth, _EMPTY)

    def _render(self, client: int, view: Sequence[float]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """uint8 [H, W, 4] and depth-buffer values float32 [H, W] at the supersampled size."""
        width, height = self._camera.width * self._supersample, self._camera.height * self._supersample
        image = self._bullet.getCameraImage(
            width,
            height,
            view,
            self._projection,
            shadow=int(LIGHT["shadow"]),
            lightDirection=LIGHT["direction"],
            lightColor=LIGHT["color"],
            lightAmbientCoeff=LIGHT["ambient"],
            lightDiffuseCoeff=LIGHT["diffuse"],
            lightSpecularCoeff=LIGHT["specular"],
            renderer=self._bullet.ER_TINY_RENDERER,
            flags=self._bullet.ER_NO_SEGMENTATION_MASK,
            physicsClientId=client,
        )
        pixels = np.asarray(image[2], np.uint8).reshape(height, width, 4)
        return pixels, np.asarray(image[3], np.float32).reshape(height, width)

    def close(self) -> None:
        """End the clients; further calls do nothing."""
        while self._clients:
            self._bullet.disconnect(self._clients.pop())

    def _connect(self) -> int:
        client = int(self._bullet.connect(self._bullet.DIRECT))
        self._clients.append(client)
        return client

    def _call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return getattr(self._bullet, name)(*arguments, physicsClientId=self._client, **options)

    def _load(self, urdf: Urdf, path: Path | None) -> int:
        with contextlib.ExitStack() as stack:
            if path is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory())
                path = Path(folder) / "robot.urdf"
                path.write_text(urdf.text, encoding="utf-8")
            said = stack.enter_context(tempfile.TemporaryFile())
            try:
                with _fd_to(1, said.fileno()):  # pybullet warns on stdout, which belongs to results
                    return int(self._call("loadURDF", str(path), useFixedBase=True))
            except self._bullet.error:
                said.seek(0)
                words = said.read().decode(errors="replace").split("\n")
                reasons = [line for line in words if line and "b3Warning" not in line and "b3Error" not in line]
                # The first line that names this file and a line number says most; else whatever was said.
                told = [line for line in reasons if "cannot find" in line or "error" in line.lower()] or reasons
                raise InputError(f"{urdf.source}: pybullet cannot load it: {'; '.join(told)[:300]}") from None

    def _find_link(self, urdf: Urdf, index: dict[str, int]) -> int | None:
        name = self._camera.link
        if name is None:
            return None
        if name in index:
            return index[name]
        if name in urdf.links:
            return -1  # the base: the only link without a joint above it
        raise InputError(f"camera link: {urdf.source} has no link {name!r}; its links are {', '.join(urdf.links)}")

    def _connect_table(self, height: float) -> int:
        client, box = self._connect(), self._bullet.GEOM_BOX
        shape = self._bullet.createVisualShape(
            box, halfExtents=[2.5, 2.5, 0.01], rgbaColor=_TABLE_COLOR, physicsClientId=client
        )
        self._bullet.createMultiBody(0, -1, shape, [1.0, 0.0, height - 0.01], physicsClientId=client)
        return client

    def _view(self) -> Sequence[float]:
        if self._link is None:
            return self._fixed_view
        bullet, camera = self._bullet, self._camera
        if self._link >= 0:
            state = self._call("getLinkState", self._body, self._link, computeForwardKinematics=1)
            origin, turn = state[4], state[5]
        else:  # pybullet gives the base's centre of mass; its URDF frame lies before the inertial offset
            mass = self._call("getDynamicsInfo", self._body, -1)
            inverse = bullet.invertTransform(mass[3], mass[4])
            origin, turn = bullet.multiplyTransforms(
                *self._call("getBasePositionAndOrientation", self._body), inverse[0], inverse[1]
            )
        still = (0.0, 0.0, 0.0, 1.0)
        position = bullet.multiplyTransforms(origin, turn, camera.position, still)[0]
        target = bullet.multiplyTransforms(origin, turn, camera.target, still)[0]
        up = bullet.multiplyTransforms((0.0, 0.0, 0.0), turn, camera.up, still)[0]
        return bullet.computeViewMatrix(position, target, up)


def _shrink(pixels: NDArray[np.uint8], s: int) -> NDArray[np.uint8]:
    """Mean of each s x s block of pixels [H s, W s, 3], rounded half up; uint8 [H, W, 3]."""
    if s == 1:
        return pixels.copy()
    total = np.full((pixels.shape[0] // s, pixels.shape[1] // s, 3), s * s // 2, np.uint16)
    for row in range(s):
        for column in range(s):
            total += pixels[row::s, column::s]
    return (total // (s * s)).astype(np.uint8)


@contextlib.contextmanager
def _fd_to(number: int, target: int) -> Iterator[None]:
    """Send what C code writes on file descriptor `number` to `target` for a while."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(number)
    os.dup2(target, number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


@contextlib.contextmanager
def _fd_to_nothing(number: int) -> Iterator[None]:
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        with _fd_to(number, nothing):
            yield
    finally:
        os.close(nothing)
