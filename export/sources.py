"""What bundles are made from: a finished run, or another bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from export.references import OnnxReference, TorchReference
from runtime.bundle import MANIFEST, Bundle, find, shipped
from runtime.errors import InputError

if TYPE_CHECKING:
    from trainer.recipe import Graph


class Finished(Protocol):
    """What export needs of a run; `trainer.run.open_run` gives it."""

    recipe_name: str

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def robot(self) -> dict[str, Any] | None: ...  # noqa: D102
    @property
    def summary(self) -> dict[str, Any]: ...  # noqa: D102
    def graphs(self) -> list[Graph]: ...  # noqa: D102


@dataclass(frozen=True)
class Source:
    """The graphs to freeze and what the manifest says of them."""

    recipe: str
    model: str
    robot: dict[str, Any] | None
    training: dict[str, Any]
    references: Callable[[], list[TorchReference] | list[OnnxReference]]
    """The graphs; a call, because a run's are made for it."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of the packages at work."""
    bundle: Bundle | None = None
    """The bundle, if it is one."""


def source_of_run(run: Finished) -> Source:
    """A finished run."""
    return Source(
        recipe=run.recipe_name,
        model=run.model,
        robot=run.robot,
        training=run.summary,
        references=lambda: [TorchReference(graph) for graph in run.graphs()],
        versions=_versions("awase", "torch", "onnx", "onnxscript", "onnxruntime", "numpy"),
    )


def is_bundle(path: Path) -> bool:
    """Whether `path` is a bundle's folder or the bare name of a bundle shipped with the package."""
    return (path / MANIFEST).is_file() or (not path.exists() and str(path) in shipped())


def source_of_bundle(path: Path) -> Source:
    """A bundle, whose fp32 graphs stand in for PyTorch: they were compared with it when the bundle was made.

    Args:
        path: its folder, or the bare name of a shipped one.

    Raises:
        InputError: it is damaged. Its `references` raise it for graphs that are not there in fp32.
    """
    bundle = Bundle.open(find(str(path) if is_bundle(path) and not path.exists() else path))
    manifest = bundle.manifest
    return Source(
        recipe=manifest.recipe,
        model=manifest.model,
        robot=manifest.robot,
        training=manifest.training,
        references=lambda: _references(bundle),
        versions=manifest.versions | _versions("awase", "onnx", "onnxruntime", "numpy"),
        bundle=bundle,
    )


def _references(bundle: Bundle) -> list[OnnxReference]:
    graphs = bundle.manifest.graphs
    whole = {entry.name for entry in graphs if entry.precision == "fp32"}
    for entry in graphs:
        if entry.name not in whole:
            raise InputError(
                f"{bundle.path} holds graph {entry.name} in {entry.precision} but not in fp32, which the others are "
                "made from; export the run it came from"
            )
    return [
        OnnxReference(
            name=entry.name,
            inputs=entry.inputs,
            outputs=entry.outputs,
            path=bundle.file(entry),
            text=f"the fp32 ONNX file {entry.sha256[:12]}"
            + (f" ({entry.parity.against})" if entry.parity else " (not compared with PyTorch)"),
            parity=entry.parity,
        )
        for entry in graphs
        if entry.precision == "fp32"
    ]


def _versions(*packages: str) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from a source tree, or not needed for this export
            continue
    return found
