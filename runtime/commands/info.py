"""Shows what a bundle holds and what can run it here."""

from __future__ import annotations

import argparse
from typing import Any


def configure(command: argparse.ArgumentParser) -> None:
    """`info` has no options of its own."""


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The manifest of a bundle, after every file of it has been verified, and what can run it on this machine."""
    from runtime.bench import attempt
    from runtime.bundle import Bundle
    from runtime.devices import ORDER

    bundle = Bundle.open(options.bundle)
    manifest = bundle.manifest.model_dump(mode="json")
    robot = manifest["robot"]
    if robot and isinstance(robot.get("urdf"), str):
        robot["urdf"] = f"({len(robot['urdf'])} characters of URDF; see {bundle.path}/bundle.json)"
    here = []
    for entry in bundle.manifest.graphs:
        engines = bundle.engines(entry.name, entry.precision)
        for device in ORDER:
            row: dict[str, Any] = {"graph": entry.name, "precision": entry.precision, "device": device}
            if device == "tensorrt":
                row["compute_capabilities"] = {engine.file: engine.compute_capabilities for engine in engines}
            session = attempt(bundle, entry.name, device, entry.precision)
            runs = not isinstance(session, str)
            here.append(row | {"runs": runs} | ({} if runs else {"reason": session}))
    return {"path": str(bundle.path), "verified": True, **manifest, "here": here}
