"""The CUDA kernels' own code runs on the CPU, block by block and thread by thread, under sanitizers.

It is compiled by the C++ compiler (AWASE_CUDA=emulate), with shared memory on the heap, so that AddressSanitizer sees
what a GPU would not report. A missing barrier shows as a difference between two orders of the threads.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "cpp_ext"
OPERATIONS = ["ssim", "ssim_pairs", "gram", "gram_backward", "blend", "noise", "frames", "devices"]


def sanitizer(name):
    path = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return path if os.path.isabs(path) else ""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What emulated.py reports, for each order of the threads."""
    for program in ("cmake", "g++"):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    preload = [sanitizer("libasan.so"), sanitizer("libubsan.so")]
    if not all(preload):
        pytest.skip("needs g++'s sanitizers (libasan, libubsan)")
    folder = tmp_path_factory.mktemp("emulated")
    options = ["-DAWASE_CUDA=emulate", "-DAWASE_SANITIZE=ON", "-DAWASE_PYTHON=OFF", "-DCMAKE_CXX_COMPILER=g++"]
    for command in (
        ["cmake", "-S", SOURCE, "-B", folder, *options],
        ["cmake", "--build", folder, "--target", "awase_emulated", "--parallel", "2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    environment = os.environ | {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [sys.executable, Path(__file__).with_name("emulated.py"), folder / "libawase_emulated.so"]
    running = {
        order: subprocess.Popen(
            command,
            env=environment | {"AWASE_EMULATE_ORDER": order},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for order in ("forward", "reverse")
    }
    reports = {}
    for order, process in running.items():
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error[-4000:]
        reports[order] = json.loads(out)
    return reports


@pytest.mark.parametrize("operation", OPERATIONS)
def test_equals_the_reference(results, operation):
    for order, report in results.items():
        assert report[operation]["count"] > 0
        assert not report[operation]["failures"], order


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_order_of_threads_changes_no_bit(results, operation):
    assert results["forward"][operation]["digest"] == results["reverse"][operation]["digest"]
