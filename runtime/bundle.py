"""A bundle: a folder with `bundle.json` and the graph files it names. All that a machine without PyTorch needs.

The manifest is the contract: every input and output of every graph by name, shape, type, range and unit, and the
SHA-256 of every file. Nothing of a bundle is used before all of it is verified.
"""

from __future__ import annotations

import hashlib
import json
import keyword
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from runtime.errors import InputError
from runtime.onnx_file import weights_outside

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
LARGEST_MANIFEST = 2**24
"""Bytes; a manifest is some kilobytes, a robot's description included."""
PRETRAINED = Path(__file__).parent / "pretrained"
"""Folder of the bundles that ship with the package, one sub-folder each."""


def _plain_file_name(name: str) -> str:
    # A manifest comes from elsewhere: it must not make us open files outside its folder.
    if Path(name).name != name or name in ("", ".", "..", MANIFEST) or "\\" in name or not name.isprintable():
        raise ValueError(f"{name[:100]!r} is not a plain file name")
    return name


FileName = Annotated[str, AfterValidator(_plain_file_name)]
Identifier = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Shape = tuple[Annotated[int, Field(ge=1)], ...]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


class Port(_Model):
    """One input or output of a graph."""

    name: Identifier
    shape: Shape
    """Without the batch axis, which comes first and is dynamic. An image or a latent is [C, H, W]."""
    dtype: Literal["float32", "float16", "uint8", "int64"] = "float32"
    kind: Literal["noise", "image", "vector", "latent"]
    """A latent is what an encoder makes of an image, [C, h, w]."""
    range: tuple[float, float] | None = None
    """Lowest and highest value, e.g. (-1, 1) for an image; None: unbounded, or per component (`limits`)."""
    unit: str = ""
    """Unit of a vector's components, e.g. "rad"."""
    names: tuple[str, ...] = ()
    """Names of a vector's components, e.g. the joints'."""
    limits: tuple[tuple[float, float], ...] | None = None
    """Lowest and highest value of each component, in `unit`."""
    parts: Shape = ()
    """Channels of each part of a latent, in order: what `cpp_ext.blend` gives a λ of its own."""

    @model_validator(mode="after")
    def _consistent(self) -> Port:
        axes = 3 if self.kind in ("image", "latent") else 1
        if len(self.shape) != axes:
            raise ValueError(f"{self.name}: shape {list(self.shape)} of kind {self.kind!r}, expected {axes} axes")
        for what, values in (("names", self.names or None), ("limits", self.limits)):
            if values is not None and len(values) != self.shape[0]:
                raise ValueError(f"{self.name}: {len(values)} {what} for {self.shape[0]} components")
        if self.parts and (self.kind != "latent" or sum(self.parts) != self.shape[0]):
            raise ValueError(
                f"{self.name}: parts {list(self.parts)}, expected a latent's counts of its {self.shape[0]}"
            )
        for low, high in [*([self.range] if self.range else []), *(self.limits or ())]:
            if not low < high:
                raise ValueError(f"{self.name}: lower bound {low} is not below upper bound {high}")
        return self


class OutputParity(_Model):
    """How far one output drifted from PyTorch's. Errors of an image are in units of half its range (so as they are on
    [-1, 1]), those of a vector are fractions of its components' ranges."""

    mean_abs: float
    max_abs: float
    psnr_db: float
    """Peak signal-to-noise ratio over the output's range; 999 if the outputs are equal."""
    ssim: float | None = None
    """Mean SSIM (Gaussian window) of an image output packed to uint8, if it is large enough for the window."""
    ssim_worst: float | None = None
    """The lowest sample's."""
    mean_bound: float | None = None
    """Largest `mean_abs` allowed; None: not bounded."""
    max_bound: float | None = None
    """Largest `max_abs` allowed; None: not bounded."""
    ssim_bound: float | None = None
    """Lowest `ssim` allowed; None: not bounded."""


class Drift(_Model):
    """How far one tensor inside a graph is from the same tensor of the fp32 graph."""

    tensor: str
    operator: str
    """ONNX operator that makes it."""
    sqnr_db: float
    """Signal-to-quantisation-noise ratio: mean square of the fp32 values over that of the difference."""


class Parity(_Model):
    """The parity report of one graph against its PyTorch module."""

    seeds: int
    samples: int
    batch_sizes: tuple[int, ...]
    against: str
    """What ran it, e.g. "onnxruntime 1.31.1 CPUExecutionProvider against torch 2.13.0 cpu"."""
    outputs: dict[str, OutputParity]
    drift: tuple[Drift, ...] = ()
    """Of a reduced precision: the tensors inside the graph in the order they are computed."""


class FileEntry(_Model):
    """A file of the bundle, and what it must be."""

    file: FileName
    bytes: int
    sha256: Sha256


Precision = Literal["fp32", "fp16", "int8"]


RESERVED = ("seed", "first", "robot")
"""What generated files say of themselves beside the modalities."""


class GraphEntry(FileEntry):
    """One graph in ONNX form, in one precision. Whatever that is, inputs and outputs are as the ports say."""

    name: Identifier
    precision: Precision = "fp32"
    opset: int
    inputs: tuple[Port, ...] = Field(min_length=1)
    outputs: tuple[Port, ...] = Field(min_length=1)
    parity: Parity | None = None

    @model_validator(mode="after")
    def _consistent(self) -> GraphEntry:
        names = [port.name for port in (*self.inputs, *self.outputs)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"graph {self.name}: two inputs or outputs are called {name!r}")
            if keyword.iskeyword(name) or name in RESERVED:
                raise ValueError(f"graph {self.name}: no input or output can be called {name!r}")
        return self


class EngineEntry(FileEntry):
    """One graph built into an engine ahead of time."""

    graph: Identifier
    precision: Precision = "fp32"
    onnx_sha256: Sha256
    """Of the ONNX file it was built from: an engine of another one is stale."""
    flavour: Literal["tensorrt-rtx", "tensorrt"]
    version: str
    """Of the library that built it; a "tensorrt" engine runs on that version alone."""
    compute_capabilities: tuple[str, ...]
    """The GPU generations it runs on, e.g. "SM89"."""
    profile: dict[str, tuple[Shape, Shape, Shape]]
    """Smallest, best and largest shape of each input, batch first."""


class Noise(_Model):
    """How the kind "noise" inputs are drawn, so that sample k of seed s is the same everywhere."""

    generator: Literal["philox4x32-10"] = "philox4x32-10"
    transform: Literal["box-muller"] = "box-muller"
    distribution: Literal["normal(0, 1)"] = "normal(0, 1)"


class Manifest(_Model):
    """What `bundle.json` holds."""

    schema_version: Literal[1] = 1
    name: str
    recipe: str
    """The training system it came from."""
    model: str
    """The task-level object `runtime.load` returns for it."""
    graphs: tuple[GraphEntry, ...] = Field(min_length=1)
    engines: tuple[EngineEntry, ...] = ()
    noise: Noise = Noise()
    robot: dict[str, Any] | None = None
    """Description of the robot whose joints these are, for replaying them; see `runtime.robot`."""
    training: dict[str, Any] = {}
    versions: dict[str, str] = {}
    licence: str = "Apache-2.0"

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the bundle but the manifest."""
        return (*self.graphs, *self.engines)

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        graphs = [f"{graph.name} {graph.precision}" for graph in self.graphs]
        files = [entry.file for entry in self.files]
        for what, values in (("graph", graphs), ("file", files)):
            if len(set(values)) != len(values):
                raise ValueError(f"a {what} is named twice among {', '.join(values)}")
        ports: dict[str, Any] = {}
        for graph in self.graphs:
            if ports.setdefault(graph.name, (graph.inputs, graph.outputs)) != (graph.inputs, graph.outputs):
                raise ValueError(f"graph {graph.name} has other inputs or outputs in {graph.precision}")
        for engine in self.engines:
            if f"{engine.graph} {engine.precision}" not in graphs:
                of = f"{engine.graph} {engine.precision}"
                raise ValueError(f"engine {engine.file} is of graph {of}, not one of {', '.join(graphs)}")
        return self

    def to_json(self) -> str:
        """The text of `bundle.json`. It ends in its closing brace, so that no truncation of it is valid JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shipped() -> list[str]:
    """Names of the bundles that come with the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{MANIFEST}"))


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, bundle: str | Path) -> Bundle:
        """Read a bundle's manifest and verify every file it names.

        Args:
            bundle: a folder, or the bare name of a bundle shipped with the package (which a folder of that name in
                the working directory does not hide: write `./NAME` for that).

        Raises:
            InputError: naming the file that is missing, truncated, changed, malformed or of a newer schema.
        """
        path = find(bundle)
        manifest = read_manifest(path / MANIFEST)
        for entry in manifest.files:
            _verify(path / entry.file, entry)
        for graph in manifest.graphs:
            _check_complete(path / graph.file)
        return cls(path, manifest)

    def graph(self, name: str, precision: Precision = "fp32") -> GraphEntry:
        """The graph called `name` in one precision.

        Raises:
            InputError: there is none; the message lists what there is.
        """
        for graph in self.manifest.graphs:
            if (graph.name, graph.precision) == (name, precision):
                return graph
        have = [graph.precision for graph in self.manifest.graphs if graph.name == name]
        if have:
            raise InputError(
                f"{self.path}: graph {name} is there in {', '.join(have)}, not in {precision}; "
                f"`python -m export RUN --precision fp32,{precision}` makes it"
            )
        known = ", ".join(dict.fromkeys(graph.name for graph in self.manifest.graphs))
        raise InputError(f"{self.path}: no graph {name!r}, only {known}")

    def engines(self, name: str, precision: Precision = "fp32") -> tuple[EngineEntry, ...]:
        """The engines built from one graph in one precision; none if it has none."""
        return tuple(e for e in self.manifest.engines if (e.graph, e.precision) == (name, precision))

    def file(self, entry: FileEntry) -> Path:
        """Where a graph's or an engine's file is."""
        return self.path / entry.file


def find(bundle: str | Path) -> Path:
    """The folder of a bundle given by path or by the bare name of a shipped one.

    Raises:
        InputError: there is no such bundle.
    """
    text = str(bundle)
    if isinstance(bundle, str) and text in shipped():
        return PRETRAINED / text
    if not isinstance(bundle, str | Path):
        raise InputError(f"bundle is {bundle!r:.80}, expected a folder or the name of a shipped bundle")
    path = Path(bundle)
    try:
        if (path / MANIFEST).is_file():
            return path
    except (OSError, ValueError) as error:  # a name that no file can have
        raise InputError(f"{text[:200]!r} cannot be a bundle's folder: {error}") from None
    ships = f"shipped bundles: {', '.join(shipped()) or 'none'}"
    if path.is_dir():
        raise InputError(f"{path} holds no {MANIFEST}, so it is no bundle; make one with `python -m export` ({ships})")
    if path.exists():
        raise InputError(f"{path} is a file, expected a bundle's folder ({ships})")
    raise InputError(f"no bundle {text!r}: neither a folder nor a shipped bundle ({ships})")


def read_manifest(path: Path) -> Manifest:
    """Read and check a `bundle.json`.

    Raises:
        InputError: it is missing, no JSON, of a newer schema, or a field of it is wrong.
    """
    try:
        if (size := path.stat().st_size) > LARGEST_MANIFEST:
            raise InputError(
                f"{path} has {size} bytes, expected at most {LARGEST_MANIFEST}; it is no bundle's manifest"
            )
        raw = json.loads(path.read_text(encoding="utf-8"))
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} is missing; export the bundle again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is truncated or no JSON ({error}); copy or export the bundle again") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("schema_version"), int):
        raise InputError(f"{path} has no schema_version, so it is no bundle's manifest; export the bundle again")
    if raw["schema_version"] > SCHEMA_VERSION:
        raise InputError(
            f"{path} has schema version {raw['schema_version']}, this awase reads up to {SCHEMA_VERSION}; upgrade awase"
        )
    try:
        return Manifest.model_validate_json(json.dumps(raw), strict=True)
    except ValidationError as error:
        first, more = error.errors(include_url=False)[0], error.error_count() - 1
        where = ".".join(str(part) for part in first["loc"]) or "manifest"
        also = f" (and {more} more)" if more else ""
        raise InputError(f"{path}: {where}: {first['msg']}{also}; export the bundle again") from None


def _verify(path: Path, entry: FileEntry) -> None:
    again = "copy or export the bundle again"
    try:
        if path.is_symlink():
            raise InputError(f"{path} is a link, expected a file of the bundle itself; {again}")
        if not path.is_file():
            raise InputError(f"{path} is missing; {again}")
        actual = path.stat().st_size
        if actual != entry.bytes:
            state = "truncated" if actual < entry.bytes else "too long"
            raise InputError(f"{path} is {state}: {actual} bytes, {MANIFEST} says {entry.bytes}; {again}")
        digest = sha256_of(path)
    except OSError as error:
        raise InputError(f"{str(path)[:300]} cannot be read: {error.strerror}; {again}") from None
    if digest != entry.sha256:
        raise InputError(f"{path} has changed: SHA-256 {digest[:12]}…, {MANIFEST} says {entry.sha256[:12]}…; {again}")


def _check_complete(path: Path) -> None:
    """Refuse a graph that keeps weights elsewhere: nothing would have verified them."""
    try:
        outside = weights_outside(memoryview(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise InputError(f"{path} is no ONNX file; export the bundle again") from None
    if outside:
        raise InputError(f"{path} keeps weights in another file, which nothing verifies; export the bundle again")
