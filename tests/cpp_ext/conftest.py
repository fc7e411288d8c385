import numpy as np
import pytest
from instruction_sets import sets

import cpp_ext


def pytest_generate_tests(metafunc):
    if "isa" in metafunc.fixturenames:
        metafunc.parametrize("isa", sets() or [""], indirect=True)


@pytest.fixture
def isa(request):
    """Each instruction set in turn."""
    if not cpp_ext.compiled():
        pytest.skip("the compiled kernels were not built here")
    cpp_ext.set_isa(request.param)
    yield request.param
    cpp_ext.set_isa("")


@pytest.fixture
def threads():
    """Sets the number of threads for one test."""
    yield cpp_ext.set_threads
    if cpp_ext.compiled():
        cpp_ext.set_threads(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)
