"""Two processes with half a batch each make the step that one process makes with the whole batch."""

import json
import os
import subprocess
import sys

import pytest
from tiny_fusion import tiny_pictures

from trainer import checkpoint, run

COMMON = "--batch 16 --total-kimg 0.016 --metric-kimg 0 --snapshot-kimg 0 --threads 1 --device cpu --name step"
ARGUMENTS = {
    "mgan": "--width 4 --d-width 4 --hidden 16 --read 1",
    "fusion": "--size 32 --width 4 --latent 22 --critic-width 4 --held-out 8 --pretrain 0 --precision fp32 --pairs 4 "
    "--content-reconstruction 1e-6",
}
# Relative to a tensor's largest value (or to 1). Perceptual losses are sums of squares of some 100,000 features, so
# that their gradients' rounding is larger; a sum that does not cross processes would show as 0.1 or more.
ROUNDING = {"mgan": 1e-5, "fusion": 1e-4}
# `--multi_gpu` is accelerate's word for several processes: with `--device cpu` they train on the CPU, through gloo.
OPTIONS = (
    "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
)
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", *OPTIONS.split()]
ACCELERATE += ["--main_process_port", "0", "-m", "trainer"]


def launch(command, recipe, *more):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    arguments = f"{recipe} {COMMON} {ARGUMENTS[recipe]}".split()
    return subprocess.run(
        [*command, *arguments, *map(str, more)], capture_output=True, text=True, env=environment, timeout=300
    )


def one_step(command, processes, recipe, data, runs):
    done = launch(command, recipe, "--data", data, "--runs", runs, *(["--cache", runs] if recipe == "fusion" else []))
    assert done.returncode == 0, done.stderr[-2000:]
    assert f" {processes} process(es)" in done.stderr
    assert "Warning" not in done.stderr
    found = checkpoint.newest(runs / "step", print)
    assert found is not None
    return found[0], json.loads((runs / "step" / "stats.jsonl").read_text())


@pytest.mark.parametrize("recipe", ["mgan", "fusion"])
def test_two_processes_equal_one(recipe, tiny, tmp_path):
    data = tiny if recipe == "mgan" else tiny_pictures(tmp_path / "pictures")
    one, stats_one = one_step([sys.executable, "-m", "trainer"], 1, recipe, data, tmp_path / "one")
    two, stats_two = one_step(ACCELERATE, 2, recipe, data, tmp_path / "two")
    assert one.keys() == two.keys()
    difference = {name: (one[name].double() - two[name].double()).abs() for name in one}

    # What every step is made of, averaged gradients (Adam's first moment), agrees everywhere.
    gradients = {name: max(1.0, one[name].abs().max().item()) for name in one if name.endswith("/exp_avg")}
    assert gradients and all(difference[name].max() < ROUNDING[recipe] * scale for name, scale in gradients.items())
    assert any(one[name].abs().max() > 1e-3 for name in gradients)

    # Weights agree too. Adam's first step is lr·g/(|g| + 1e-8): where a gradient is rounding noise around zero it may
    # be anything up to lr, in one process as in two, so those few are left out.
    compared = 0
    opened = run.open_run(tmp_path / "one" / "step").recipe
    names = {p: f"network/{n}/{k}" for n, network in opened.networks.items() for k, p in network.named_parameters()}
    for key, optimizer in opened.optimizers.items():
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        for index, parameter in enumerate(trained):
            moment = f"optimizer/{key}/{index}/exp_avg"
            meant = one[moment].abs() > 1e-6 * (1 if recipe == "mgan" else 100 * gradients[moment])
            assert (difference[names[parameter]][meant] < 1e-5).all(), names[parameter]
            compared += int(meant.sum())
    buffers = {name for name in one if name.startswith("network/")} - set(names.values())
    assert buffers and all((difference[name] < ROUNDING[recipe]).all() for name in buffers)
    assert compared > 5000
    assert stats_one.keys() == stats_two.keys()
    assert all(
        abs(stats_one[key] - stats_two[key]) < ROUNDING[recipe] * max(1, abs(stats_one[key])) for key in stats_one
    )


def test_an_error_is_said_once(tmp_path):
    done = launch(ACCELERATE, "mgan", "--data", tmp_path / "nowhere", "--runs", tmp_path)
    assert done.returncode != 0
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "no such file or folder" in done.stderr
