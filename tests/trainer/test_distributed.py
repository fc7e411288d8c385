"""Two processes with half a batch each make the step that one process makes with the whole batch."""

import json
import os
import subprocess
import sys

from trainer import checkpoint, run

ARGUMENTS = (
    "mgan --batch 16 --total-kimg 0.016 --width 4 --d-width 4 --hidden 16 --read 1 --metric-kimg 0 --snapshot-kimg 0 "
    "--threads 1 --device cpu --name step"
).split()
# `--multi_gpu` is accelerate's word for several processes: with `--device cpu` they train on the CPU, through gloo.
OPTIONS = (
    "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
)
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", *OPTIONS.split()]
ACCELERATE += ["--main_process_port", "0", "-m", "trainer"]


def launch(command, *more):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return subprocess.run(
        [*command, *ARGUMENTS, *map(str, more)], capture_output=True, text=True, env=environment, timeout=300
    )


def one_step(command, processes, tiny, runs):
    done = launch(command, "--data", tiny, "--runs", runs)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f" {processes} process(es)" in done.stderr
    assert "Warning" not in done.stderr
    found = checkpoint.newest(runs / "step", print)
    assert found is not None
    return found[0], json.loads((runs / "step" / "stats.jsonl").read_text())


def test_two_processes_equal_one(tiny, tmp_path):
    one, stats_one = one_step([sys.executable, "-m", "trainer"], 1, tiny, tmp_path / "one")
    two, stats_two = one_step(ACCELERATE, 2, tiny, tmp_path / "two")
    assert one.keys() == two.keys()
    difference = {name: (one[name].double() - two[name].double()).abs() for name in one}

    # What every step is made of, averaged gradients (Adam's first moment), agrees everywhere.
    gradients = [name for name in one if name.endswith("/exp_avg")]
    assert gradients and all(difference[name].max() < 1e-5 for name in gradients)
    assert any(one[name].abs().max() > 1e-3 for name in gradients)

    # Weights agree too. Adam's first step is lr·g/(|g| + 1e-8): where a gradient is rounding noise around zero it may
    # be anything up to lr, in one process as in two, so those few are left out.
    compared = 0
    for network, module in run.open_run(tmp_path / "one" / "step").recipe.networks.items():
        trained = [f"network/{network}/{name}" for name, _ in module.named_parameters()]
        for index, name in enumerate(trained):
            meant = one[f"optimizer/{network}/{index}/exp_avg"].abs() > 1e-6
            assert (difference[name][meant] < 1e-5).all(), name
            compared += int(meant.sum())
        buffers = {name for name in one if name.startswith(f"network/{network}/")} - set(trained)
        assert all((difference[name] < 1e-5).all() for name in buffers)
    assert compared > 5000
    assert stats_one.keys() == stats_two.keys()
    assert all(abs(stats_one[key] - stats_two[key]) < 1e-5 for key in stats_one)


def test_an_error_is_said_once(tmp_path):
    done = launch(ACCELERATE, "--data", tmp_path / "nowhere", "--runs", tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "no such file or folder" in done.stderr
