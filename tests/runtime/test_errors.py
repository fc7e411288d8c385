"""A command that is ended leaves nothing half-written."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

WRITE = """
import sys, time
from pathlib import Path
from runtime.errors import cli
from runtime.files import whole

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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_ended(tmp_path: Path, number: signal.Signals, status: int) -> None:
    command = [sys.executable, "-c", WRITE, str(tmp_path / "file")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == status and "Traceback" not in err
    assert not list(tmp_path.iterdir())
