"""The GPU benchmark without a GPU: its arithmetic, and the whole of it on the CPU by the host's clock."""

import io
import subprocess

import pytest
import torch
from rich.console import Console

import cpp_ext
from benchmarks import gpu, roofline, torch_peers
from benchmarks.gpu_kernels import Kernel
from benchmarks.peers import torch_threads
from benchmarks.roofline import Roof, Work

H100 = Roof(copy=3.0e12, write=2.8e12, issue=roofline.issue_rate(132, (9, 0), 1.98e9))


def test_limits_of_known_gpus():
    assert H100.flops == pytest.approx(67e12, rel=0.01)
    assert roofline.issue_rate(108, (8, 0), 1.41e9) * 2 == pytest.approx(19.5e12, rel=0.01)  # A100
    assert roofline.issue_rate(128, (8, 9), 2.52e9) * 2 == pytest.approx(82.6e12, rel=0.01)  # RTX 4090


def test_bound_is_the_longer_of_memory_and_arithmetic():
    ssim = roofline.ssim(1000, 3, 256, 256, 4, "gaussian")
    assert ssim.read == 2 * 1000 * 3 * 256 * 256 * 4 and ssim.written == 8000
    limit = roofline.bound(ssim, H100)
    assert limit.by == "FP issue" and limit.seconds == pytest.approx(0.62e-3, rel=0.02)
    by_hand = 6 * 256 * 256 + 44 * 246 * 256 + (44 + 17) * 246 * 246
    assert ssim.instructions == 3000 * by_hand
    assert roofline.bound(roofline.ssim(1000, 3, 256, 256, 4, "uniform"), H100).by == "memory"
    assert roofline.bound(Work(4.0, 1.0), H100).seconds == 5.0 / 3.0e12
    grid = roofline.bound(Work(1.0, 1000.0), H100)
    assert grid.by == "write" and grid.seconds == 1001 / 2.8e12


def test_work_of_gram_matrices_is_one_triangle():
    work = roofline.gram(4, 512, 1024)
    assert work.instructions == 4 * (512 * 513 / 2) * 1024
    assert work.bytes == 4 * (4 * 512 * 1024 + 4 * 512 * 512)
    assert roofline.gram_backward(4, 512, 1024).instructions == 4 * 512 * 512 * 1024


def test_pairs_cost_less_than_scoring_each_by_itself():
    once = roofline.ssim(1100, 3, 80, 80, 1, "gaussian")
    reused = roofline.ssim_pairs(100, 1100, 3, 80, 80, 1, "gaussian")
    assert 1.5 < once.instructions / reused.instructions < 4 and reused.read == 2 * 100 * 3 * 80 * 80


def test_row_says_what_was_reached():
    work = Work(8e9, 1e9)
    peers = {"frame_analytics": 6e-3, "torchmetrics": "not installed"}
    row = roofline.row("ssim", 4e-3, work, H100, 80, peers, 1e-7)
    assert row["GB_per_s"] == pytest.approx(2250) and row["bound_by"] == "memory"
    assert row["percent_of_bound"] == pytest.approx(75) and row["target_met"] is False
    assert row["ratios"] == {"frame_analytics": 1.5} and row["bar"] == 1.4 and row["met"] is True
    assert row["peers_ms"] == {"frame_analytics": 6.0, "torchmetrics": "not installed"}
    cells = roofline.cells(row)
    assert "≥ 80 missed" in cells and cells[-1] == "frame_analytics 1.50x (≥ 1.4 met)\ntorchmetrics not installed"
    assert roofline.row("pack", 4e-3, work, H100, None, {}, 0.0)["met"] is None


def test_every_kernel_is_checked_and_timed():
    console = Console(file=io.StringIO())
    with torch_threads(1)():  # more would wait for each other where the cores are busy
        table, rows = gpu.run(torch.device("cpu"), gpu.WallClock(), H100, 1, console, small=True)
    console.print(table)
    assert not [row for row in rows if "wrong" in row]
    names = {row["name"].split()[0] for row in rows}
    assert names == {"ssim", "ssim_pairs", "gram", "gram_backward", "blend", "pack", "unpack", "noise"}
    assert all(row["ms"] > 0 and row["percent_of_bound"] > 0 for row in rows)


def test_wrong_values_are_not_timed(monkeypatch):
    def never() -> float:
        raise AssertionError("timed")

    good = torch.arange(20.0)
    wrong = Kernel("wrong", lambda: good + (good == 19), lambda n: good[n], 1e-3, Work(1, 1), None, {"peer": never})
    monkeypatch.setattr(gpu, "kernels", lambda device, small: iter([wrong]))
    _, rows = gpu.run(torch.device("cpu"), gpu.WallClock(), H100, 1, Console(file=io.StringIO()))
    assert [row["wrong"] for row in rows] == ["differs from the CPU kernel by 0.053, expected at most 0.001"]


def test_a_peer_without_memory_is_named_so():
    def hungry() -> float:
        raise torch.cuda.OutOfMemoryError("too much")

    peers = {"hungry": hungry, "absent": "not installed", "torch": lambda: None}
    kernel = Kernel("one", lambda: torch.zeros(1), lambda n: torch.zeros(1)[n], 0.0, Work(1, 1), None, peers)
    seconds, others = gpu.in_turns(kernel, gpu.WallClock(), 1)
    assert seconds > 0 and others["hungry"] == "out of memory" and others["absent"] == "not installed"
    assert list(others) == list(peers) and isinstance(others["torch"], float)


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
def test_ssim_in_pytorch_is_ssim(window):
    a, b = torch.rand(2, 3, 2, 20, 17)
    expected = cpp_ext.reference.ssim(a.numpy(), b.numpy(), window=window, data_range=1, layout="NCHW")
    got = torch_peers.ssim(a, b, 1.0, window)["torch"]()
    assert (got.numpy() - expected).__abs__().max() < 1e-5


def test_skipped_says_why(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.skipped() == "PyTorch sees no CUDA device"


def test_a_number_from_nvidia_smi_or_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: None)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "1980\n", ""))
    assert gpu._query("clocks.max.sm", torch.device("cpu")) == 1980
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 0, "[N/A]\n", ""))
    assert gpu._query("clocks.max.sm", torch.device("cpu")) == 0
