"""A command that is ended leaves nothing half-written."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

WRITE = """
import signal, sys, time
from pathlib import Path
from runtime.errors import cli
from runtime.files import whole

# A shell that starts its work in the background has it ignore Ctrl-C; here it is the thing to see.
signal.signal(signal.SIGINT, signal.default_int_handler)

@cli
def main(argv):
    with whole(Path(argv[0])) as file:
        file.write(b"half")
        file.flush()
        print("writing", flush=True)
        time.sleep(60)
    return 0

sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("package", ["trainer", "export"])
@pytest.mark.parametrize("module", ["tyro", "torch"])
def test_a_package_that_is_not_installed(package: str, module: str) -> None:
    arguments = ["mgan", "--preset", "demo", "--dry-run"] if package == "trainer" else ["runs/none"]
    code = f"import sys; sys.modules[{module!r}] = None; import runpy; sys.argv = {[package, *arguments]!r}\n"
    code += f"runpy.run_module({package!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    if package == "export" and module == "tyro":
        assert "no run" in done.stderr  # it does not need it
    else:
        assert done.stderr.strip().splitlines()[-1].endswith("is not installed; `pip install 'awase[train]'`")
    assert done.returncode == 2 and "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ended(tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == status and "Traceback" not in err
    assert not list(tmp_path.iterdir())
