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


@cli
def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(argv)
    result = options.command(options)
    print(json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False))
    return 0


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Write images as PNG files, vectors as CSV files and a contact sheet; returns what went where."""
    model = runtime.load(options.bundle, options.device, options.threads)
    out: Path = options.out
    _check_arguments(model, options)
    _prepare(out, model.modalities, options.overwrite)
    parts = []
    files = {port.name: port.name if port.kind == "image" else f"{port.name}.csv" for port in model.modalities}
    with _progress() as progress:
        task = progress.add_task("generating", total=options.count)
        for start in range(0, options.count, options.batch):  # by parts: images are never all in memory
            size = min(options.batch, options.count - start)
            part = model.generate(size, options.seed, options.first + start, options.batch)
            keep = {}
            for port, values in zip(model.modalities, part, strict=True):
                keep[port.name] = values[: max(0, SHEET - start)] if port.kind == "image" else values
                if port.kind == "image":
                    for offset, image in enumerate(values):
                        write_png(out / port.name / f"{options.first + start + offset:06d}.png", image)
            parts.append(keep)
            progress.advance(task, size)
    sheets: dict[str, str] = {}
    for port in model.modalities:
        values = np.concatenate([part[port.name] for part in parts])
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
    _check_arguments(model, options)
    if options.random < 1:
        raise InputError(f"--random is {options.random}, expected at least 1")
    image, vector = _image_and_joints(model)
    with _robot(model.bundle.manifest.robot, vector, options) as robot:
        size, seen = list(image.shape[1:]), [robot.camera.height, robot.camera.width]
        if size != seen:  # before the renders, which take seconds
            raise InputError(
                f"the bundle's images are {size} pixels (H, W), the camera's {seen}; give --camera size=WxH"
            )
        samples = model.generate(options.count, options.seed, batch=options.batch)._asdict()
        best, curve = _yardstick(model.bundle.manifest, robot)
        figures = ssim_gap.evaluate(
            robot,
            samples[image.name],
            samples[vector.name],
            seed=options.seed,
            matched=options.count,
            random=options.random,
            best=best,
            curve=curve,
        )
    return {"bundle": str(model.bundle.path), "name": model.bundle.manifest.name, **figures}


def _yardstick(manifest: Manifest, robot: Robot) -> tuple[float, list[dict[str, float]]]:
    """The reachable gap and the joint-error curve of a robot: the bundle's if it is its robot, else measured now."""
    from runtime.metrics import ssim_gap

    known = manifest.training.get("metrics", {}).get("ssim_gap", {})
    if robot.description() == manifest.robot and "reachable" in known:
        return known["reachable"], known["joint_error_curve"]
    with _progress() as progress:
        # A hundred true renders for each size of joint error.
        task = progress.add_task("replaying true poses", total=100 * (len(ssim_gap.ERRORS) + 1))
        curve = ssim_gap.joint_error_curve(robot, progress=lambda done: progress.update(task, completed=done))
    # Without any error the curve starts at what a perfect model reaches.
    return curve[0]["gap"], curve


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


def _check_arguments(model: Any, options: argparse.Namespace) -> None:
    """Refuse bad numbers before anything is written: a run of one sample checks all but the count."""
    if options.count < 1:
        raise InputError(f"--count is {options.count}, expected at least 1")
    model.generate(1, options.seed, getattr(options, "first", 0), options.batch)


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


def _image_and_joints(model: Any) -> tuple[Port, Port]:
    images = [port for port in model.modalities if port.kind == "image"]
    joints = [port for port in model.modalities if port.kind == "vector" and port.unit == "rad"]
    if not images or not joints:
        kinds = ", ".join(f"{port.name} ({port.kind} {port.unit})" for port in model.modalities)
        raise InputError(f"{model.bundle.path}: replaying needs an image and a vector in rad, the bundle has {kinds}")
    return images[0], joints[0]


def _robot(description: dict[str, Any] | None, joints: Port, options: argparse.Namespace) -> Robot:
    from runtime.robot import Camera, Robot

    given = {}
    if options.camera:
        given["camera"] = Camera.parse(options.camera).to_json()
    if options.joints:
        given["joints"] = options.joints
    if description is None and options.robot is None:
        raise InputError(
            "this bundle describes no robot to replay its joints on; give --robot FILE.urdf and --camera …"
        )
    # A robot with meshes is described without its URDF: then --robot is that file again, not another robot.
    if description is not None and (options.robot is None or (description.get("urdf") is None and not given)):
        return Robot.from_description(description | given, options.robot)
    known = given if description is None else {"camera": description["camera"]} | given
    camera = Camera.from_json(known["camera"]) if "camera" in known else None
    return Robot(options.robot, camera=camera, joints=options.joints or joints.names or None)


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
