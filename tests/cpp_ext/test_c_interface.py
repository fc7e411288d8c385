"""C and C++ programs find the installed library with find_package(awase) and get what Python gets."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import cpp_ext

pytestmark = [
    pytest.mark.skipif(not cpp_ext.compiled(), reason="the compiled kernels were not built here"),
    pytest.mark.skipif(not shutil.which("cmake"), reason="needs cmake"),
]
APP = Path(__file__).parent / "c_app"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("c_app")
    for command in (
        ["cmake", "-S", APP, "-B", folder, f"-Dawase_DIR={cpp_ext.cmake_dir()}", "-DCMAKE_BUILD_TYPE=Release"],
        ["cmake", "--build", folder],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def lines(program):
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()


def test_c(built):
    values, error, nothing, about = lines(built / "app_c")
    z = cpp_ext.noise(7, 40, 2, 12)
    expected = [z.ravel(), cpp_ext.pack(z.reshape(1, 3, 2, 4)).ravel(), cpp_ext.gram(z.reshape(1, 2, 12)).ravel()]
    np.testing.assert_allclose([float(word) for word in values.split()], np.concatenate(expected), rtol=1e-8)
    assert error == "1 out: got float32 [1, 3, 2, 4] in host memory, expected uint8 [1, 2, 4, 3]"
    assert nothing == "1 out: got NULL, expected float32 [count, dim]"
    assert about == "1 1 1"


def test_cpp(built):
    ones, error = lines(built / "app_cpp")
    assert ones == "1 1 1"
    assert error == "1 a: got uint8 [3, 3, 6, 32] in host memory, expected at least one channel and 7 x 7 pixels"
