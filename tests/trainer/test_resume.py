"""Training N + N images with any accident in between equals training 2N, bit for bit."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from train_tiny import OPTIONS, train

from trainer import checkpoint, log


@pytest.fixture(scope="module")
def processes():
    """Processes that start with torch already imported, each a fork of a clean server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trainer.recipes.mgan", "trainer.loop", "pybullet"])
    return context


def run(processes, *args, **changes) -> int:
    process = processes.Process(target=train, args=args, kwargs=changes)
    process.start()
    process.join(300)
    assert process.exitcode is not None, "training hangs"
    return process.exitcode


def result(runs: Path):
    """All that must be equal: tensors (weights, EMA, optimizers), the checkpoint's meta, statistics."""
    path = runs / OPTIONS.name
    newest = sorted((path / "checkpoints").glob("*.safetensors"))[-1]
    tensors, meta = checkpoint.read(newest)
    meta = {k: v for k, v in meta.items() if k not in ("seconds", "cpu_seconds")}
    records = {name: (path / name).read_text() for name in ("stats.jsonl", "metric-ssim_gap.jsonl")}
    return newest.name, checkpoint.digest(tensors), meta, records


@pytest.fixture(scope="module")
def straight(processes, tiny_robot, tmp_path_factory):
    runs = tmp_path_factory.mktemp("straight")
    assert run(processes, tiny_robot, runs) == 0
    return result(runs)


@pytest.mark.parametrize("cut", ["step 2", "step 9", "step 19", "write 2", "rename 3", "stats 4"])
def test_killed_and_resumed_equals_straight(processes, tiny_robot, tmp_path, straight, cut):
    assert run(processes, tiny_robot, tmp_path, cut) == -signal.SIGKILL
    assert not (tmp_path / OPTIONS.name / "summary.json").exists()
    assert run(processes, tiny_robot, tmp_path) == 0
    assert result(tmp_path) == straight
    assert not list((tmp_path / OPTIONS.name / "checkpoints").glob("*.partial"))


def test_sigterm_saves_and_ends_well(processes, tiny_robot, tmp_path, straight):
    assert run(processes, tiny_robot, tmp_path, "term 7") == 0
    folder = tmp_path / OPTIONS.name / "checkpoints"
    assert (folder / f"{7 * OPTIONS.batch:010d}.safetensors").exists()
    assert run(processes, tiny_robot, tmp_path) == 0
    assert result(tmp_path) == straight


def test_ctrl_c_saves_and_says_that_it_is_not_finished(tiny_robot, tmp_path):
    code = f"import train_tiny; train_tiny.train({str(tiny_robot)!r}, {str(tmp_path)!r}, 'interrupt 3')"
    here = os.pathsep.join([str(Path(__file__).parent), os.getcwd()])
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": here}, capture_output=True)
    assert done.returncode != 0 and b"KeyboardInterrupt" in done.stderr  # which the command turns into status 130
    saved = tmp_path / OPTIONS.name / "checkpoints" / f"{3 * OPTIONS.batch:010d}.safetensors"
    assert saved.exists() and b"stopped at" in done.stderr


def test_ctrl_c_in_the_last_step_ends_a_finished_run(processes, tiny_robot, tmp_path, straight):
    last = round(OPTIONS.total_kimg * 1000 / OPTIONS.batch)
    assert run(processes, tiny_robot, tmp_path, f"interrupt {last}") == 0
    assert (tmp_path / OPTIONS.name / "summary.json").exists()
    assert result(tmp_path) == straight


def test_damaged_newest_checkpoint_falls_back(processes, tiny_robot, tmp_path, straight):
    assert run(processes, tiny_robot, tmp_path, "step 16") == -signal.SIGKILL
    newest = sorted((tmp_path / OPTIONS.name / "checkpoints").glob("*.safetensors"))[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    assert run(processes, tiny_robot, tmp_path) == 0
    assert result(tmp_path) == straight


def test_metrics_carry_their_protocol(straight):
    *_, records = straight
    lines = [json.loads(line) for line in records["metric-ssim_gap.jsonl"].splitlines()]
    assert [line["images"] for line in lines] == [80, 160]
    last = lines[-1]
    assert last["gap"] == pytest.approx(last["matched"] - last["random"])
    assert (last["matched_count"], last["random_count"]) == (8, 16)
    assert 0.2 < last["reachable"] < 0.8 and last["ratio"] == pytest.approx(last["gap"] / last["reachable"])
    assert last["direction"] == "higher is better" and "SSIM" in last["ssim"]
    assert 0 <= last["spread_min"] <= last["spread_mean"]
    assert len(last["joint_error_curve"]) > 3 and "equivalent_joint_error" in last


def test_another_seed_differs(processes, tiny_robot, tmp_path, straight):
    assert run(processes, tiny_robot, tmp_path, seed=1) == 0
    assert result(tmp_path)[1] != straight[1]


def test_records_are_cut_back(tmp_path):
    lines = [{"images": n, "loss": n / 3} for n in (8, 16, 24)]
    for line in lines:
        log.append(tmp_path / "stats.jsonl", line)
    with open(tmp_path / "stats.jsonl", "a") as file:
        file.write('{"images": 32, "lo')  # a line cut short by a kill
    log.rewind(tmp_path, 16)
    assert log.read(tmp_path / "stats.jsonl") == lines[:2]
