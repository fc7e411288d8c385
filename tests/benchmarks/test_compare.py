"""The benchmark runner: what it counts, what it skips, what it refuses."""

import json
import sys
import types

import pytest

import benchmarks.__main__
from benchmarks.compare import Case, compare


def test_compare_counts_units() -> None:
    calls = {"ours": 0, "peer": 0}

    def call(side: str) -> None:
        calls[side] += 1

    result = compare(Case("count", lambda: call("ours"), "twin", lambda: call("peer"), 10), rounds=3, seconds=0.001)
    assert result.rounds == 3 and result.ratio is not None and result.ratio > 0
    assert result.ours_per_second > 0 and result.peer_per_second is not None
    assert min(calls.values()) >= 5  # once to warm up, once to set the repeats, then the rounds


def test_peer_that_is_not_installed() -> None:
    result = compare(Case("alone", lambda: None, "absent", None, 1), rounds=2, seconds=0.001)
    assert result.peer_per_second is None and result.ratio is None


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    quick = types.ModuleType("benchmarks.quick")
    quick.cases = lambda: [("sum", lambda: sum(range(100)), "absent", None, 100)]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "benchmarks.quick", quick)
    monkeypatch.setitem(sys.modules, "benchmarks.lacking", None)
    monkeypatch.setattr(benchmarks.__main__, "subjects", lambda: ["lacking", "quick"])
    assert benchmarks.__main__.main(["--rounds", "1"]) == 0
    out, err = capsys.readouterr()
    assert [result["name"] for result in json.loads(out)["results"]] == ["sum"]
    assert "lacking skipped" in err and "not installed" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["cooking"], "there is no subject 'cooking', expected one of"), (["--rounds", "0"], "--rounds is 0")],
)
def test_command_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.__main__.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}")
