"""Every kernel under AddressSanitizer and UBSan: the CPU's, and CUDA's own code, block by block and thread by thread.

CUDA's kernels are compiled by the C++ compiler (AWASE_CUDA=emulate), with shared memory on the heap, so that the
sanitizer sees what a GPU would not report. A missing barrier shows as a difference between two orders of the threads.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from instruction_sets import sets

SOURCE = Path(__file__).parents[2] / "cpp_ext"
OPERATIONS = ["ssim", "ssim_pairs", "gram", "gram_backward", "blend", "noise", "frames", "devices"]


def sanitizer(name):
    path = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return path if os.path.isabs(path) else ""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs sanitized.py and gives what it reports."""
    for program in ("cmake", "g++"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    preload = [sanitizer("libasan.so"), sanitizer("libubsan.so")]
    if not all(preload):
        pytest.skip("needs g++'s sanitizers (libasan, libubsan)")
    folder = tmp_path_factory.mktemp("sanitized")
    options = ["-DAWASE_CUDA=emulate", "-DAWASE_SANITIZE=ON", "-DCMAKE_CXX_COMPILER=g++"]
    options += ["-DAWASE_PYTHON=OFF", "-DAWASE_ENGINE=off"]
    for command in (
        ["cmake", "-S", SOURCE, "-B", folder, *options],
        ["cmake", "--build", folder, "--target", "awase", "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    environment = os.environ | {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0"}
    script = [sys.executable, Path(__file__).with_name("sanitized.py"), folder / "libawase.so"]

    def run(kind, **variables):
        done = subprocess.run([*script, kind], env=environment | variables, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def cuda(run):
    return {order: run("cuda", AWASE_EMULATE_ORDER=order) for order in ("forward", "reverse")}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_cuda_kernels_equal_the_reference(cuda, operation):
    for order, report in cuda.items():
        assert report[operation]["count"] > 0
        assert not report[operation]["failures"], order


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_order_of_threads_changes_no_bit(cuda, operation):
    assert cuda["forward"][operation]["digest"] == cuda["reverse"][operation]["digest"]


@pytest.mark.parametrize("instructions", sets() or [""])
def test_cpu_kernels_equal_the_reference(run, instructions):
    for operation, report in run("cpu", AWASE_ISA=instructions).items():
        assert report["count"] > 0
        assert not report["failures"], operation
