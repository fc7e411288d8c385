"""python -m runtime: generate with a bundle, score it, look into it. Results go to stdout as JSON, talk to stderr."""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import runtime
from runtime.errors import InputError, Parser, cli
from runtime.sheet import sheet, write_png

if TYPE_CHECKING:
    from rich.progress import Progress

    from runtime.bundle import Manifest, Port
    from runtime.robot import Robot

SHEET = 64
"""Images on a contact sheet, at most."""

RANGES = {
    "count": (1, 10**9),
    "random": (1, 10**7),
    "seed": (0, 2**64 - 1),
    "first": (0, 2**64 - 1),
    "batch": (1, 2**12),
    "threads": (1, 2**10),
}
"""Lowest and highest value of the whole numbers among the options."""


@cli
def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(argv)
    _check_numbers(options)
    result = options.command(options)
    print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
    return 0


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Write images as PNG files, vectors as CSV files and a contact sheet; returns what went where."""
    model = runtime.load(options.bundle, options.device, options.threads)
    out: Path = options.out
    _prepare(out, model.modalities, options.overwrite)
    kept: dict[str, list[np.ndarray]] = {port.name: [] for port in model.modalities}
    files = {port.name: port.name if port.kind == "image" else f"{port.name}.csv" for port in model.modalities}
    with _progress() as progress:
        task = progress.add_task("generating", total=options.count)
        for start in range(0, options.count, options.batch):  # by parts: images are never all in memory
            size = min(options.batch, options.count - start)
            part = model.generate(size, options.seed, options.first + start, options.batch)
            for port, values in zip(model.modalities, part, strict=True):
                if port.kind != "image":
                    kept[port.name].append(values)
                    continue
                if start < SHEET:  # a copy, for a view would keep the whole part
                    kept[port.name].append(values[: SHEET - start].copy())
                for offset, image in enumerate(values):
                    write_png(out / port.name / f"{options.first + start + offset:06d}.png", image)
            progress.advance(task, size)
    sheets: dict[str, str] = {}
    for port in model.modalities:
        values = np.concatenate(kept[port.name])
        if port.kind == "image":
            sheets[port.name] = f"sheet-{port.name}.png" if sheets else "sheet.png"
            write_png(out / sheets[port.name], sheet(values))
        else:
            names = port.names or tuple(f"{port.name}_{index}" for index in range(port.shape[0]))
            _write_csv(out / files[port.name], names, values)
            if port.limits is not None:
                _write_csv(out / f"{port.name}.limits.csv", names, np.asarray(port.limits).T)
    return {
        "bundle": str(model.bundle.path),
        "out": str(out),
        "count": options.count,
        "seed": options.seed,
        "first": options.first,
        "files": files,
        "sheets": sheets,
    }


def evaluate(options: argparse.Namespace) -> dict[str, Any]:
    """Replay generated joints on the simulator and score the generated images against the renders."""
    from runtime.metrics import ssim_gap

    model = runtime.load(options.bundle, options.device, options.threads)
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


def _yardstick(manifest: Manifest, robot: Robot) -> list[dict[str, float]]:
    """The joint-error curve of a robot: the bundle's if it is its robot, else measured now."""
    from runtime.metrics import ssim_gap

    known = manifest.training.get("metrics", {}).get("ssim_gap", {})
    if robot.description() == manifest.robot and "joint_error_curve" in known:
        return known["joint_error_curve"]
    with _progress() as progress:
        # A hundred true renders for each size of joint error.
        task = progress.add_task("replaying true poses", total=100 * (len(ssim_gap.ERRORS) + 1))
        return ssim_gap.joint_error_curve(robot, progress=lambda done: progress.update(task, completed=done))


def info(options: argparse.Namespace) -> dict[str, Any]:
    """The manifest of a bundle, after every file of it has been verified."""
    from runtime.bundle import Bundle

    bundle = Bundle.open(options.bundle)
    manifest = bundle.manifest.model_dump(mode="json")
    robot = manifest["robot"]
    if robot and isinstance(robot.get("urdf"), str):
        robot["urdf"] = f"({len(robot['urdf'])} characters of URDF; see {bundle.path}/bundle.json)"
    return {"path": str(bundle.path), "verified": True, **manifest}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m runtime", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(command=function)
        sub.add_argument("bundle", metavar="BUNDLE", help="a bundle's folder or the name of a shipped one")
        return sub

    def running(sub: argparse.ArgumentParser, count: int, counted: str) -> None:
        sub.add_argument("--count", type=int, default=count, help=f"{counted} (default {count})")
        sub.add_argument("--seed", type=int, default=0, help="sample k of a seed is always the same (default 0)")
        sub.add_argument("--batch", type=int, default=64, help="samples a run of the graph (default 64)")
        sub.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default cpu)")
        sub.add_argument("--threads", type=int, help="CPU threads (default: the engine's own choice)")

    sub = command("generate", generate)
    running(sub, 64, "samples to make")
    sub.add_argument("--first", type=int, default=0, help="number of the first sample (default 0)")
    sub.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or empty")
    sub.add_argument("--overwrite", action="store_true", help="write into DIR although it holds files")
    sub = command("evaluate", evaluate)
    running(sub, 100, "matched pairs to score")
    sub.add_argument("--random", type=int, default=1000, help="random pairs to score (default 1000)")
    sub.add_argument("--robot", type=Path, metavar="URDF", help="the robot (default: the one the bundle describes)")
    sub.add_argument("--camera", nargs="+", metavar="KEY=VALUE", help="e.g. position=.06,0,.36 target=.22,0,0 fov=66")
    sub.add_argument("--joints", nargs="+", metavar="NAME", help="joints of the robot, in the bundle's order")
    command("info", info)
    return parser


def _check_numbers(options: argparse.Namespace) -> None:
    """Refuse numbers out of their range before any work."""
    for name, (low, high) in RANGES.items():
        value = getattr(options, name, None)
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name} is {value}, expected a whole number from {low} to {high}")
    first = getattr(options, "first", 0)
    if first + getattr(options, "count", 0) > 2**64:
        raise InputError(f"--first is {first}, expected at most {2**64 - options.count}: samples end at 2^64")


def _prepare(out: Path, modalities: tuple[Port, ...], overwrite: bool) -> None:
    """Make the folder. Of what is in it only numbered PNGs of an earlier run are removed, and only if asked."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(f"--out {out} is not empty; give a new folder, or --overwrite to write into it")
    try:
        for port in modalities:
            folder = out / port.name if port.kind == "image" else out
            folder.mkdir(parents=True, exist_ok=True)
            if port.kind == "image":
                for stale in folder.iterdir():
                    if re.fullmatch(r"\d{6,}\.png", stale.name):
                        stale.unlink()
    except OSError as error:
        raise InputError(f"--out {out} cannot be written: {error.strerror}") from None


def _write_csv(path: Path, names: Sequence[str], rows: np.ndarray) -> None:
    """A header and one row a sample; each number in the fewest digits that give it back exactly."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows([[str(value) for value in row] for row in rows])


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


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
