"""Two processes with half a batch each make the step that one process makes with the whole batch."""

import json
import os
import subprocess
import sys

import torch

from trainer import checkpoint

ARGUMENTS = (
    "mgan --batch 16 --total-kimg 0.016 --width 4 --d-width 4 --hidden 16 --read 1 --metric-kimg 0 --snapshot-kimg 0 "
    "--threads 1 --device cpu"
).split()


def launch(command, tiny, runs):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*command, *ARGUMENTS, "--data", str(tiny), "--runs", str(runs), "--name", "step"],
        capture_output=True, text=True, env=environment, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    tensors, _ = checkpoint.newest(runs / "step")
    stats = [json.loads(line) for line in (runs / "step" / "stats.jsonl").read_text().splitlines()]
    return tensors, stats


def test_two_processes_equal_one(tiny, tmp_path):
    one, stats_one = launch([sys.executable, "-m", "trainer"], tiny, tmp_path / "one")
    options = "--cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", *options.split(), "-m", "trainer"]
    two, stats_two = launch(accelerate, tiny, tmp_path / "two")
    assert one.keys() == two.keys()
    worst = {name: (one[name].double() - two[name].double()).abs().max().item() for name in one if one[name].numel()}
    moved = [name for name, difference in worst.items() if difference > 1e-5]
    assert not moved, {name: worst[name] for name in moved}
    assert stats_one[-1].keys() == stats_two[-1].keys()
    assert all(abs(stats_one[-1][k] - stats_two[-1][k]) < 1e-5 for k in stats_one[-1])
    assert any(torch.any(tensor != 0) for name, tensor in two.items() if "exp_avg" in name)
