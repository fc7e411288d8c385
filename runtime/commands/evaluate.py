"""Scores a bundle by replaying its joints on the simulator."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.commands.options import add_engine, add_samples, load, progress
from runtime.errors import InputError

if TYPE_CHECKING:
    from runtime.bundle import Manifest, Port
    from runtime.robot import Robot


def configure(command: argparse.ArgumentParser) -> None:
    """Add the options of `evaluate`."""
    add_samples(command, 100, "matched pairs to score")
    add_engine(command)
    command.add_argument("--random", type=int, default=1000, help="random pairs to score (default 1000)")
    command.add_argument("--robot", type=Path, metavar="URDF", help="the robot (default: the one the bundle describes)")
    command.add_argument(
        "--camera", nargs="+", metavar="KEY=VALUE", help="e.g. position=.06,0,.36 target=.22,0,0 fov=66"
    )
    command.add_argument("--joints", nargs="+", metavar="NAME", help="joints of the robot, in the bundle's order")


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Replay generated joints on the simulator and score the generated images against the renders."""
    from runtime.metrics import ssim_gap

    model = load(options)
    vector = _joints(model, options)
    with _robot(model.bundle.manifest.robot, vector, options) as robot:
        image = _image(model, robot)
        # By name where the names are the robot's own, whatever their order; else --joints says which is which.
        named = set(vector.names) == set(robot.joints)
        columns = [vector.names.index(name) for name in robot.joints] if named else list(range(len(robot.joints)))
        samples = model.generate(options.count, options.seed, batch=options.batch)._asdict()
        figures = ssim_gap.evaluate(
            robot,
            samples[image.name],
            samples[vector.name][:, columns],
            seed=options.seed,
            matched=options.count,
            random=options.random,
            curve=_yardstick(model.bundle.manifest, robot),
        )
    return {"bundle": str(model.bundle.path), "name": model.bundle.manifest.name, **figures}


_POINT = ("error", "gap")


def _yardstick(manifest: Manifest, robot: Robot) -> list[dict[str, float]]:
    """The joint-error curve of a robot: the bundle's if it is its robot, else measured now."""
    from runtime.metrics import ssim_gap

    known: Any = manifest.training
    for name in ("metrics", "ssim_gap", "joint_error_curve"):
        known = known.get(name) if isinstance(known, dict) else None
    numbers = [
        point.get(name) if isinstance(point, dict) else None
        for point in (known if isinstance(known, list) else ())
        for name in _POINT
    ]
    if robot.description() == manifest.robot and numbers and all(isinstance(number, int | float) for number in numbers):
        return known
    with progress() as bar:
        # A hundred true renders for each size of joint error.
        task = bar.add_task("replaying true poses", total=100 * (len(ssim_gap.ERRORS) + 1))
        return ssim_gap.joint_error_curve(robot, progress=lambda done: bar.update(task, completed=done))


def _joints(model: Any, options: argparse.Namespace) -> Port:
    """The vector in rad that poses the robot: the one whose components are named as its joints."""
    from runtime.robot.urdf import Urdf

    description = model.bundle.manifest.robot
    if description is None and options.robot is None:
        raise InputError(
            "this bundle describes no robot to replay its joints on; give --robot FILE.urdf and --camera …"
        )
    vectors = [port for port in model.modalities if port.kind == "vector" and port.unit == "rad"]
    if options.joints:
        joints = options.joints
        fitting = [port for port in vectors if set(port.names) == set(joints)]
        fitting = fitting or [port for port in vectors if port.shape[0] == len(joints)]
    else:
        joints = description.get("joints", []) if description else []
        movable = Urdf.read(options.robot).movable() if options.robot else ()
        if options.robot and not (joints and set(joints) <= set(movable)):  # another robot than the bundle's
            joints = movable
            fitting = [port for port in vectors if port.names and set(port.names) <= set(joints)]
        else:
            fitting = [port for port in vectors if set(port.names) == set(joints)]
    if not fitting:
        have = "; ".join(f"{port.name} ({', '.join(port.names) or port.shape[0]})" for port in vectors)
        raise InputError(
            f"{model.bundle.path}: replaying needs a vector in rad of the robot's joints {', '.join(joints)}; the "
            f"bundle has {have or 'none'}; give --joints NAME … in its order"
        )
    return fitting[0]


def _image(model: Any, robot: Robot) -> Port:
    """The image that the robot's camera takes: the first of its size."""
    size = (robot.camera.height, robot.camera.width)
    images = [port for port in model.modalities if port.kind == "image"]
    for port in images:
        if port.shape == (3, *size):
            return port
    have = ", ".join(f"{port.name} {list(port.shape[1:])}" for port in images)
    raise InputError(
        f"{model.bundle.path}: replaying needs an image of the camera's {list(size)} pixels (H, W), the bundle has "
        f"{have or 'none'}; give --camera size=WxH"
    )


def _robot(description: dict[str, Any] | None, vector: Port, options: argparse.Namespace) -> Robot:
    """The robot to replay on: the one the bundle describes, changed by the options, or another one."""
    from runtime.robot import Camera, Robot

    given: dict[str, Any] = {}
    if options.camera:
        base = Camera.from_json(description["camera"]) if description else None
        given["camera"] = Camera.parse(options.camera, base, complete=base is None).to_json()
    if options.joints:
        given["joints"] = options.joints
    # A robot with meshes is described without its URDF: then --robot is that file again, not another robot.
    if description is not None and (options.robot is None or (description.get("urdf") is None and not given)):
        return Robot.from_description(description | given, options.robot)
    known = given if description is None else {"camera": description["camera"]} | given
    camera = Camera.from_json(known["camera"]) if "camera" in known else None
    return Robot(options.robot, camera=camera, joints=options.joints or vector.names)
