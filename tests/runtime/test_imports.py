"""Imports run one way, cpp_ext ← runtime ← trainer ← export, and `import runtime` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ORDER = ["cpp_ext", "runtime", "trainer", "export"]
HEAVY = ["torch", "pybullet", "matplotlib", "pydantic", "onnxruntime", "cv2", "scipy", "rich", "tensorrt_rtx", "onnx"]
NO_TORCH = ["torch", "accelerate", "safetensors", "matplotlib", "tyro"]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add((node.module or "").split(".")[0])
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found
    return found


@pytest.mark.parametrize("package", ORDER)
def test_one_way(package: str) -> None:
    later = set(ORDER[ORDER.index(package) + 1 :]) | {"tests", "benchmarks"}
    for path in files(package):
        assert not imported(path) & later, f"{path.relative_to(ROOT)} imports {imported(path) & later}"


@pytest.mark.parametrize("package", ["cpp_ext", "runtime"])
def test_no_pytorch(package: str) -> None:
    for path in files(package):
        assert not imported(path) & set(NO_TORCH), f"{path.relative_to(ROOT)} imports {imported(path) & set(NO_TORCH)}"


def loaded_by(code: str) -> set[str]:
    code += "\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.splitlines()}


def test_import_runtime_is_light() -> None:
    assert not loaded_by("import runtime") & set(HEAVY)


def test_generating_needs_no_pytorch(bundle: Path) -> None:
    loaded = loaded_by(f"import runtime; runtime.load({str(bundle)!r}).generate(2)")
    assert not loaded & {*NO_TORCH, "pybullet", "cv2"}


def test_help_of_export_waits_for_nothing_heavy() -> None:
    assert not loaded_by("import export.__main__") & set(HEAVY)
