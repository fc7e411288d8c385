"""Fusion's benchmark compares like with like: the animation's two sides give the same frames, the grid is whole."""

import pytest

from benchmarks import fusion
from benchmarks.compare import compare
from benchmarks.peers import torch_threads


def test_fusion(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = fusion.Size("tiny", 32, 4, 16, parts=3, levels=4, frames=5)
    monkeypatch.setattr(fusion, "SIZES", (tiny,))
    monkeypatch.setattr(fusion, "usable_cores", lambda: 1)
    with torch_threads(1)():  # more would wait for one another, busily
        cases = list(fusion.cases())
    assert len({case.name for case in cases}) == len(cases) == 5
    assert [case.units_per_call for case in cases] == [4**3] * 2 + [5] * 3
    assert [case.bar for case in cases] == [fusion.GRID_BAR] * 2 + [None, None, fusion.ANIMATION_BAR]
    for case in cases:
        result = compare(case, rounds=1, seconds=0.001)
        assert result.ratio is not None and result.ratio > 0
        assert (result.difference is not None) == (case.tolerance is not None)
    assert cases[0].ours().shape == (4, 4, 4, 32, 32, 3)
    assert [case.tolerance for case in cases] == [None, None, fusion.CLOSE, fusion.CLOSE, None]
