"""The benchmark runner: what it counts, what it sets and puts back, what it skips, what it refuses."""

import json
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import benchmarks.__main__
import cpp_ext
from benchmarks import peers
from benchmarks.compare import Case, Way, WrongValue, compare, fastest, relative_difference
from runtime import machine


def test_compare_counts_units() -> None:
    calls = {"ours": 0, "peer": 0}

    def call(side: str) -> None:
        calls[side] += 1

    result = compare(Case("count", lambda: call("ours"), "twin", lambda: call("peer"), 10), rounds=3, seconds=0.001)
    assert result.rounds == 3 and result.ratio is not None and result.ratio > 0
    assert result.ours_per_second > 0 and result.peer_per_second is not None
    assert min(calls.values()) >= 5  # once to warm up, once to set the repeats, then the rounds
    assert result.bar is None and result.met is None and result.difference is None


def test_peer_that_is_not_installed() -> None:
    result = compare(Case("alone", lambda: None, "absent", None, 1, bar=2.0), rounds=2, seconds=0.001)
    assert result.peer_per_second is None and result.ratio is None
    assert result.bar == 2.0 and result.met is None


def test_settings_hold_during_a_side_and_only_then() -> None:
    now = ["nothing"]
    seen: dict[str, set[str]] = {"ours": set(), "peer": set()}

    @contextmanager
    def setting(name: str) -> Iterator[None]:
        now.append(name)
        yield
        now.pop()

    case = Case(
        "set",
        lambda: seen["ours"].add(now[-1]),
        "twin",
        lambda: seen["peer"].add(now[-1]),
        1,
        ours_setting=lambda: setting("one thread"),
        peer_setting=lambda: setting("two threads"),
    )
    compare(case, rounds=2, seconds=0.0001)
    assert seen == {"ours": {"one thread"}, "peer": {"two threads"}} and now == ["nothing"]


def test_bar_is_met_or_missed() -> None:
    def busy(turns: int) -> float:
        return float(sum(range(turns)))

    case = Case("bar", lambda: busy(100), "slow", lambda: busy(20_000), 1, bar=4.0)
    assert compare(case, rounds=3, seconds=0.001).met is True
    assert compare(case._replace(bar=1e6), rounds=3, seconds=0.001).met is False


def test_wrong_values_are_not_timed() -> None:
    case = Case("values", lambda: np.array([1.0, 2.002]), "twin", lambda: [1.0, 2.0], 1, tolerance=1e-2)
    assert compare(case, rounds=1, seconds=0.0001).difference == pytest.approx(1e-3)
    with pytest.raises(WrongValue, match="values: differs from twin by 0.001 of its largest value, expected at most"):
        compare(case._replace(tolerance=1e-4))


def test_a_buffer_that_both_sides_write_is_still_compared() -> None:
    buffer = np.zeros(1)

    def write(value: float) -> np.ndarray:
        buffer[:] = value
        return buffer

    with pytest.raises(WrongValue):
        compare(Case("shared", lambda: write(1), "twin", lambda: write(2), 1, tolerance=0.0))


def test_relative_difference() -> None:
    assert relative_difference([1, 4], [1, 5]) == pytest.approx(0.2)
    assert relative_difference(np.zeros(0), np.zeros(0)) == 0
    assert relative_difference([1], [1, 1]) == relative_difference([float("nan")], [1]) == float("inf")


def test_the_fastest_way_is_taken() -> None:
    ways = [Way(str(turns), lambda turns=turns: sum(range(turns))) for turns in (20_000, 100, 5_000)]  # type: ignore[misc]
    assert fastest(ways, seconds=0.0005).name == "100" and fastest(ways[:1]).name == "20000"


def test_threads_are_put_back() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    with peers.torch_threads(before + 1)():
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    if cpp_ext.compiled():
        state = cpp_ext.threads(), cpp_ext.isa()
        with peers.ours(1)():
            assert (cpp_ext.threads(), cpp_ext.isa()) == (1, state[1])
        assert (cpp_ext.threads(), cpp_ext.isa()) == state


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity of threads")
def test_one_core_is_given_back() -> None:
    before = os.sched_getaffinity(0)
    with peers.one_core():
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


def test_peers_compute_ssim() -> None:
    a, b = np.random.default_rng(0).integers(0, 256, (2, 9, 20, 24, 3), np.uint8)
    for window in ("gaussian", "uniform"):
        ways = peers.skimage(a, b, 255, window)
        if window == "gaussian":
            ways += peers.frame_analytics(a, b, 255, 1, nchw=False) + peers.pytorch_msssim(a, b, 255, 1)
        else:
            ways += peers.fast_ssim(a, b, 255, 1) + peers.fast_ssim(a, b, 255, 2)
        assert ways  # scikit-image is one of the tests' own needs
        expected = cpp_ext.reference.ssim(a, b, window=window)
        for way in ways:
            with way.setting():
                assert np.abs(np.asarray(way.call()) - expected).max() < 1e-4, way.name


def test_machine_is_described() -> None:
    described = machine.describe(benchmarks.__main__.PACKAGES)
    assert described["cores_usable"] <= described["cores"] and described["isa"] == cpp_ext.isa()
    assert described["versions"]["numpy"] == np.__version__ and described["processor"]


def test_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    quick, wrong, lone = (types.ModuleType(f"benchmarks.{name}") for name in ("quick", "wrong", "lone"))
    quick.cases = lambda: [("sum", lambda: sum(range(100)), "absent", None, 100)]  # type: ignore[attr-defined]
    wrong.cases = lambda: iter([Case("two", lambda: 2, "one", lambda: 1, 1, 1.0, 0.0)])  # type: ignore[attr-defined]
    lone.skipped = lambda: "there is no device"  # type: ignore[attr-defined]
    for module in (quick, wrong, lone):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "benchmarks.lacking", None)
    known = ["lacking", "lone", "quick"]
    monkeypatch.setattr(benchmarks.__main__, "subjects", lambda: known)
    assert benchmarks.__main__.main(["--rounds", "1", "--out", str(tmp_path / "o")]) == 0
    out, err = capsys.readouterr()
    assert [(result["subject"], result["name"]) for result in json.loads(out)["results"]] == [("quick", "sum")]
    assert "lacking skipped" in err and "not installed" in err and "lone skipped: there is no device" in err
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["quick.json"]
    assert json.loads((tmp_path / "o" / "quick.json").read_text()) == json.loads(out)
    assert benchmarks.__main__.main(["lacking"]) == 2  # asked for by name
    assert "error: lacking: benchmarks.lacking is not installed, which it is measured with" in capsys.readouterr().err
    known.append("wrong")
    assert benchmarks.__main__.main(["wrong", "--rounds", "1"]) == 1
    out, err = capsys.readouterr()
    assert "differs from one" in json.loads(out)["results"][0]["wrong"] and "wrong: two" in err


def test_every_file_is_a_subject_or_said_not_to_be() -> None:
    assert benchmarks.__main__.subjects() == ["engine", "fusion", "gpu", "kernels", "overhead", "render"]


@pytest.mark.parametrize(
    ("words", "message"),
    [(["cooking"], "there is no subject 'cooking', expected one of"), (["--rounds", "0"], "--rounds is 0")],
)
def test_command_refuses(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmarks.__main__.main(words) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {message}")
