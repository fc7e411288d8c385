"""The engine's benchmarks compare like with like: every case's two sides agree, and the overhead is a difference."""

from collections.abc import Iterator

import pytest
import torch
from rich.console import Console
from torch import nn

from benchmarks import engine, overhead
from benchmarks.compare import Case, compare
from benchmarks.generators import Case as Generator
from benchmarks.generators import _settled


def tiny() -> Iterator[Generator]:
    torch.manual_seed(0)
    layers = [nn.Linear(8, 16 * 25), nn.Unflatten(1, (16, 5, 5)), nn.BatchNorm2d(16), nn.ReLU()]
    layers += [nn.ConvTranspose2d(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
    yield Generator("tiny", _settled(nn.Sequential(*layers, nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Tanh()), 8), 8, 20)


def test_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "generators", tiny)
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)  # which takes a compiler and a minute
    cases: list[Case] = list(engine.cases())
    assert len({(case.name, case.peer_name) for case in cases}) == len(cases) == 2 * 6 + 2
    for case in cases:
        result = compare(case, rounds=1, seconds=0.001)
        assert result.ratio is not None and result.ratio > 0
        exact = "int8" not in case.name and "stream" not in case.name and "bf16" not in case.peer_name
        assert (result.difference is not None) == exact
        assert case.bar is not None or "int8" in case.name or "bf16" in case.peer_name


def test_folding_changes_no_value() -> None:
    import copy

    module, z = next(tiny()).module, torch.randn(3, 8)
    folded = engine._folded(copy.deepcopy(module))
    norms = [layer for layer in folded.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert len(norms) == 1  # the one behind a reshape
    assert (folded(z) - module(z)).abs().max() < 1e-5


def test_overhead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overhead, "CALLS", 5)
    monkeypatch.setattr(overhead, "START", {"import runtime": (["-c", "import runtime"], 1000.0)})
    name, table, _, rows = overhead.measure(1, Console(quiet=True))
    assert name == "overhead" and table.row_count == len(rows) == 5
    for row in rows[:4]:
        assert row["bare_us"] > 0 and row["met"] == (row["over_us"] <= row["bar_us"])
    assert rows[4]["met"] and rows[4]["ours_s"] > 0
