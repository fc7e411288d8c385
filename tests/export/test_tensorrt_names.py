"""Every name of TensorRT's API that the builder uses is one that TensorRT has, and is called with as many arguments.

The names are read from the code itself, and what has them is inferred: `trt` is the library, `trt.Builder(…)` makes a
Builder, its methods return what the type stubs of `tensorrt` say.
"""

import ast
import inspect
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from export import tensorrt
from runtime.backends import tensorrt as opener

RTX_ONLY = {("", "ComputeCapability"), ("IBuilderConfig", "num_compute_capabilities")}
RTX_ONLY |= {("IBuilderConfig", "set_compute_capability")}
"""Building for GPUs that are not there is TensorRT-RTX's alone; the code does it only where targets are given."""


class Type(NamedTuple):
    """What an expression is: a "module", a "class", an "object" of a class, a "method" (or "unbound", of a
    class), or a "list" of objects."""

    kind: str
    name: str
    member: str = ""


LIBRARY = Type("module", "")


class Stubs:
    """The classes of the type stubs: their members and what these give."""

    def __init__(self, path: Path) -> None:
        lines = path.read_text().splitlines()
        while True:
            try:
                body = ast.parse("\n".join(lines)).body
                break
            except SyntaxError as error:  # signatures from C++ that are no Python; then any arguments will do
                at = (error.lineno or 1) - 1
                mended = re.sub(r"def (\w+)\(.*", r"def \1(*any):", lines[at])
                assert mended != lines[at], error
                lines[at] = mended
        self.classes: dict[str, ast.ClassDef] = {}
        self._collect("", body)

    def _collect(self, outer: str, body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                name = f"{outer}.{node.name}" if outer else node.name
                self.classes[name] = node
                self._collect(name, node.body)

    def members(self, name: str) -> list[ast.stmt]:
        node = self.classes[name]
        bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in self.classes]
        return [*node.body, *(member for base in bases for member in self.members(base))]

    def find(self, name: str, member: str) -> list[ast.stmt]:
        """The definitions of a class's member: several if it is overloaded."""
        return [node for node in self.members(name) if member in _names(node)]


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
    return {target.id for target in targets if isinstance(target, ast.Name)}


class Reader:
    """Walks functions and collects (class, member) pairs, and the calls of methods."""

    def __init__(self, stubs: Stubs) -> None:
        self.stubs = stubs
        self.used: set[tuple[str, str]] = set()
        self.wrong: list[str] = []
        self.types: dict[str, Type] = {}

    def read(self, function: ast.FunctionDef) -> None:
        self.types = {"trt": LIBRARY, "library": LIBRARY}
        for statement in function.body:
            self._visit(statement)

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.ListComp):
            self.type(node)  # what its variable is, before what is done with it
        for child in ast.iter_child_nodes(node):
            self._visit(child)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            if (kind := self.type(node.value)) is not None:
                self.types[node.targets[0].id] = kind
        elif isinstance(node, ast.expr):
            self.type(node)

    def type(self, node: ast.expr) -> Type | None:
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if isinstance(node, ast.ListComp):
            for generator in node.generators:
                of = self.type(generator.iter)
                if of is not None and of.kind == "list" and isinstance(generator.target, ast.Name):
                    self.types[generator.target.id] = Type("object", of.name)
            inner = self.type(node.elt)
            return Type("list", inner.name) if inner is not None and inner.kind == "object" else None
        if isinstance(node, ast.Attribute):
            base = self.type(node.value)
            return None if base is None else self.member(base, node.attr)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr") and len(node.args) > 1:
                base, name = self.type(node.args[0]), node.args[1]
                if base is not None and isinstance(name, ast.Constant):
                    return self.member(base, name.value)
                return None
            called = self.type(node.func)
            return None if called is None else self.call(called, node)
        return None

    def member(self, base: Type, name: str) -> Type | None:
        if base.kind == "module":
            if name == "__version__":
                return None
            self.used.add(("", name))
            return Type("class", name)
        if base.kind not in ("class", "object"):
            return None
        self.used.add((base.name, name))
        if base.name not in self.stubs.classes:
            return None
        for found in self.stubs.find(base.name, name):
            if isinstance(found, ast.ClassDef):
                return Type("class", f"{base.name}.{name}")
            if isinstance(found, ast.FunctionDef):
                if any(isinstance(d, ast.Name) and d.id == "property" for d in found.decorator_list):
                    return self.result(found.returns)
                return Type("method" if base.kind == "object" else "unbound", base.name, name)
            if isinstance(found, ast.AnnAssign):
                return self.result(found.annotation)
        return None

    def call(self, called: Type, node: ast.Call) -> Type | None:
        if called.kind == "class":
            return Type("object", called.name)
        if called.kind not in ("method", "unbound"):
            return None
        overloads = [one for one in self.stubs.find(called.name, called.member) if isinstance(one, ast.FunctionDef)]
        given = len(node.args) + len(node.keywords) - (called.kind == "unbound")
        for one in overloads:
            names = [argument.arg for argument in one.args.args[1:]]
            least = len(names) - len(one.args.defaults)
            fits = least <= given <= len(names) and all(keyword.arg in names for keyword in node.keywords)
            if fits or one.args.vararg:
                if (called.name, called.member) == ("OnnxParser", "get_error"):  # the stubs leave its type open
                    return Type("object", "ParserError")
                return self.result(one.returns)
        self.wrong.append(f"{called.name}.{called.member} takes other arguments than {ast.unparse(node)}")
        return None

    def result(self, annotation: ast.expr | None) -> Type | None:
        name = annotation.id if isinstance(annotation, ast.Name) else ""
        return Type("object", name) if name in self.stubs.classes else None


@pytest.fixture(scope="module")
def reader() -> Reader:
    paths = [Path(entry) / "tensorrt_bindings" / "tensorrt.pyi" for entry in sys.path]
    stubs = next((path for path in paths if path.is_file()), None)
    if stubs is None:
        pytest.skip("pip install tensorrt-stubs")
    reader = Reader(Stubs(stubs))
    for node in ast.walk(ast.parse(Path(tensorrt.__file__).read_text() + inspect.getsource(opener.error_log))):
        if isinstance(node, ast.FunctionDef):
            reader.read(node)
    return reader


def test_the_names_are_found(reader: Reader) -> None:
    """If this fails the code is written in a way that the reader does not follow."""
    assert {
        ("", "Builder"),
        ("Builder", "create_network"),
        ("Builder", "build_serialized_network"),
        ("BuilderFlag", "TF32"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("OnnxParser", "parse"),
        ("OnnxParser", "num_errors"),
        ("ParserError", "desc"),
        ("IBuilderConfig", "add_optimization_profile"),
        ("IBuilderConfig", "set_timing_cache"),
        ("ITimingCache", "serialize"),
        ("IOptimizationProfile", "set_shape"),
        ("ILogger.Severity", "ERROR"),
        *RTX_ONLY,
    } <= reader.used


def test_tensorrt_has_them(reader: Reader) -> None:
    missing = {
        f"{owner}.{name}"
        for owner, name in reader.used - RTX_ONLY
        if not (
            name in reader.stubs.classes
            if not owner
            else owner == "ComputeCapability" or reader.stubs.find(owner, name)
        )
    }
    assert not missing and not reader.wrong


def test_tensorrt_rtx_has_them(reader: Reader) -> None:
    library = pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    missing = []
    for owner, name in reader.used:
        thing = library
        for part in filter(None, owner.split(".")):
            thing = getattr(thing, part)
        if not hasattr(thing, name):
            missing.append(f"{owner}.{name}")
    assert not missing


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("trt.Builder(log).build_engine(1)", "Builder.build_engine"),
        ("trt.Bilder(log)", ".Bilder"),
        ("trt.Builder(log).create_network(1, 2)", "takes other arguments"),
        ("config = trt.Builder(log).create_builder_config()\nconfig.max_workspace_size = 1", "max_workspace_size"),
    ],
)
def test_it_notices(reader: Reader, code: str, complaint: str) -> None:
    other = Reader(reader.stubs)
    body = "\n".join(f"    {line}" for line in code.splitlines())
    (function,) = ast.parse(f"def build(trt, log):\n{body}\n").body
    assert isinstance(function, ast.FunctionDef)
    other.read(function)
    unknown = [
        f"{owner}.{name}"
        for owner, name in other.used
        if not (other.stubs.find(owner, name) if owner in other.stubs.classes else name in other.stubs.classes)
    ]
    assert complaint in " ".join(unknown + other.wrong)
