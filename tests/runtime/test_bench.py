"""python -m runtime bench: its cases, figures, table and JSON. Nothing here depends on how fast this machine is."""

import contextlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpp_ext
import runtime.bench
from runtime.__main__ import main
from runtime.bench import ROUNDS, Case, Way, attempt, feeds_of, figures, measure
from runtime.bundle import Bundle, Port
from runtime.errors import InputError
from runtime.session import Session


class Fake(Session):
    """Writes down what is asked of it."""

    backend = "fake"
    precision = "fp32"
    inputs = outputs = ()

    def __init__(self, device: str, log: list[tuple[str, int]]) -> None:
        self.device, self.log = device, log

    def pieces(self, feeds: Mapping[str, np.ndarray]) -> Iterator[tuple[slice, Mapping[str, np.ndarray]]]:
        count = len(feeds["z"])
        for start in range(0, count, 4):
            self.log.append((self.device, min(4, count - start)))
            yield slice(start, start + 4), {}

    def run(self, feeds: Mapping[str, np.ndarray], outputs: Any = None) -> dict[str, np.ndarray]:
        return {}


class FakeOnGpu(Fake):
    """With lanes of 4 samples."""

    largest = 4

    @contextlib.contextmanager
    def lane(self) -> Iterator[Any]:
        yield self

    def run(self, feeds: Any, outputs: Any = None) -> dict[str, np.ndarray]:
        self.log.append(("lane", feeds if isinstance(feeds, int) else 0))
        return {}

    def wait(self) -> None:
        self.log.append(("wait", 0))


def test_figures() -> None:
    way = Way(lambda: None, 2, [0.001, 0.002, 0.003, 0.010], span=0.008)  # two at once
    assert figures(way, batch=8) == {"p50_ms": 2.5, "p95_ms": 8.95, "images_per_second": 4000.0}


def test_calls_at_once_overlap() -> None:
    meet = threading.Barrier(3, timeout=10)
    calls: list[str] = []

    def call() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) > 1:  # all but the one that warms up
            meet.wait()  # returns only when three calls are under way

    way = Way(call, at_once=3)
    way.turn(0)
    assert len(way.seconds) == 3 and len(set(calls[1:])) == 3 and way.span >= max(way.seconds)


def test_a_gpu_is_timed_with_and_without_copies() -> None:
    log: list[tuple[str, int]] = []
    case = Case("generator", FakeOnGpu("cuda:0", log), 6, {"z": np.zeros((6, 2), np.float32)})
    for way in case.ways:
        way.call()
        way.span = 0.002 if way.call == case.call else 0.001
        way.seconds.append(way.span)
    assert log == [("cuda:0", 4), ("cuda:0", 2), ("lane", 4), ("lane", 2), ("wait", 0)]
    row = case.row()
    assert row["images_per_second"] == 3000 and row["without_copies"]["images_per_second"] == 6000
    assert (row["calls"], row["device"], row["batch"], row["at_once"]) == (1, "cuda:0", 6, 1)


def test_cases_take_turns(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, int]] = []
    monkeypatch.setattr(runtime.bench, "attempt", lambda bundle, graph, device, *_: Fake(device, log))
    done: list[float] = []
    rows = measure(Bundle.open(bundle), ["a", "b"], ["fp32"], [1, 3], seconds=1e-9, progress=done.append)
    assert [(row["device"], row["batch"]) for row in rows] == [("a", 1), ("a", 3), ("b", 1), ("b", 3)]
    assert all(row["calls"] == ROUNDS and row["without_copies"] == "same memory" for row in rows)
    once = [("a", 1), ("a", 3), ("b", 1), ("b", 3)]
    turns = [case for case in once for _ in range(2)]  # each turn has a call that is not counted
    assert log == once + turns * ROUNDS
    assert done == sorted(done) and done[-1] == 1


def test_throughput_keeps_as_many_calls_under_way_as_a_stream(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hints: list[str] = []

    def opens(bundle: Bundle, graph: str, device: str, precision: str, threads: int | None, hint: str) -> Fake:
        hints.append(hint)
        session = Fake(device, [])
        session.overlap = 3
        return session

    monkeypatch.setattr(runtime.bench, "attempt", opens)
    for hint, at_once in (("throughput", 3), ("latency", 1)):
        rows = measure(Bundle.open(bundle), ["a"], ["fp32"], [1], seconds=1e-9, hint=hint)  # type: ignore[arg-type]
        assert [row["at_once"] for row in rows] == [at_once] and rows[0]["calls"] == at_once * ROUNDS
    assert hints == ["throughput", "latency"]


def test_what_cannot_run_is_a_row(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    rows = measure(opened, ["tensorrt", "cpu"], ["fp32", "int8"], [2], threads=1, seconds=1e-9)
    assert [row["batch"] for row in rows if "reason" not in row] == [2]
    missing = [(row["device"], row["precision"]) for row in rows if "reason" in row]
    assert missing == [("tensorrt", "fp32"), ("tensorrt", "int8"), ("cpu", "int8")]
    assert "in fp32, not in int8" in rows[-1]["reason"]
    with pytest.raises(InputError, match="in fp32, not in int8"):
        measure(opened, ["cpu"], ["int8"], [2])


def test_an_engine_that_breaks_is_a_reason(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def opens(*_: Any) -> Any:
        raise RuntimeError("the engine\nbroke")

    monkeypatch.setattr(runtime.bench, "open_session", opens)
    assert attempt(Bundle.open(bundle), "generator", "cpu", "fp32") == "RuntimeError: the engine broke"


def test_feeds_are_of_each_ports_kind() -> None:
    ports = (
        Port(name="z", kind="noise", shape=(7,)),
        Port(name="image", kind="image", shape=(3, 4, 5), range=(-1, 1)),
        Port(name="shown", kind="image", shape=(1, 4, 5), dtype="uint8", range=(0, 255)),
        Port(name="pose", kind="vector", shape=(2,), dtype="float16", limits=((0, 1), (5, 6))),
        Port(name="weight", kind="vector", shape=(3,)),
    )
    feeds = feeds_of(ports, 6, seed=4)
    assert np.array_equal(feeds["z"], cpp_ext.noise(4, 0, 6, 7))
    assert {name: (array.shape, array.dtype.name) for name, array in feeds.items()} == {
        "z": ((6, 7), "float32"),
        "image": ((6, 3, 4, 5), "float32"),
        "shown": ((6, 1, 4, 5), "uint8"),
        "pose": ((6, 2), "float16"),
        "weight": ((6, 3), "float32"),
    }
    assert feeds["image"].min() < -0.9 and feeds["image"].max() > 0.9 and feeds["shown"].max() > 200
    assert feeds["pose"][:, 1].min() >= 5 and 0 <= feeds["weight"].min() <= feeds["weight"].max() <= 1


def test_the_command(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--batch", "1,3", "--device", "cpu,openvino,cuda:99", "--seconds", ".05", "--threads", "1"]
    assert main(["bench", str(bundle), *words, "--out", str(tmp_path / "figures.json")]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result == json.loads((tmp_path / "figures.json").read_text())
    assert result["name"] == "tiny" and result["threads"] == 1 and result["hint"] == "latency"
    assert result["machine"]["cores"] >= 1 and "numpy" in result["machine"]["versions"]
    *timed, missing = result["rows"]
    assert [(row["backend"], row["batch"]) for row in timed] == [
        ("onnxruntime", 1),
        ("onnxruntime", 3),
        ("openvino", 1),
        ("openvino", 3),
    ]
    for row in timed:
        assert (row["graph"], row["device"], row["precision"]) == ("generator", "cpu", "fp32")
        assert 0 < row["p50_ms"] <= row["p95_ms"] and row["images_per_second"] > 0 and row["calls"] >= ROUNDS
        assert row["without_copies"] == "same memory"
        assert f"{row['p50_ms']:.3f}" in err and f"{row['images_per_second']:,.0f}" in err
    assert missing["device"] == "cuda:99" and f"not timed: cuda:99 fp32: {missing['reason']}" in err


def test_a_reason_is_said_once(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--device", "cuda:98,cpu,cuda:99", "--precision", "fp32,int8", "--batch", "1", "--seconds", ".01"]
    assert main(["bench", str(bundle), *words]) == 0
    out, err = capsys.readouterr()
    reasons = {(row["device"], row["precision"]): row["reason"] for row in json.loads(out)["rows"] if "reason" in row}
    assert len(reasons) == 5
    said = [line for line in err.splitlines() if line.startswith("not timed: ")]
    assert len(said) == len(set(reasons.values()))
    int8 = reasons["cpu", "int8"]
    assert f"not timed: cuda:98 int8, cpu int8, cuda:99 int8: {int8}" in said


def test_throughput_on_openvino(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("openvino")
    words = ["--device", "openvino", "--batch", "2", "--seconds", ".01", "--hint", "throughput"]
    assert main(["bench", str(bundle), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["hint"] == "throughput" and result["rows"][0]["at_once"] >= 2


@pytest.mark.parametrize("name", ["nowhere/a.json", "folder"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.setattr(runtime.bench, "measure", lambda *_: pytest.fail("measured first"))
    assert main(["bench", str(bundle), "--out", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: {tmp_path / name} cannot be written: ") and err.count("\n") == 1


def test_out_may_be_a_device(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "null").symlink_to(os.devnull)  # by a link: a wrong one must not reach the machine's own
    words = ["--device", "cpu", "--batch", "1", "--seconds", ".01", "--out", str(tmp_path / "null")]
    assert main(["bench", str(bundle), *words]) == 0
    assert (tmp_path / "null").is_symlink() and not Path(os.devnull).is_file()


def test_auto_is_every_backend(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(bundle), "--batch", "2", "--seconds", ".01"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["backend"] for row in rows if "reason" not in row} >= {"onnxruntime"}
    assert {row["device"] for row in rows if "reason" in row} >= {"tensorrt"}  # the bundle has no engine


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--batch", "1,two"], "--batch is '1,two', expected whole numbers from 1 to 4096 as in 1,8,64"),
        (["--batch", "0"], "--batch is '0'"),
        (["--batch", ""], "--batch is ''"),
        (["--batch", "99999999999"], "--batch is '99999999999'"),
        (["--device", "tpu"], "device is 'tpu', expected auto, cpu"),
        (["--device", "cpu,openvion"], "device is 'openvion', expected auto, cpu"),
        (["--device", "auto,tpu"], "device is 'tpu'"),
        (["--device", ""], "device is ''"),
        (["--hint", "speed"], "argument --hint: invalid choice: 'speed'"),
        (["--device", "tensorrt"], "NVIDIA driver"),
        (["--precision", "fp32,fp8"], "--precision is 'fp32,fp8', expected some of fp32,fp16,int8"),
        (["--precision", "int8", "--device", "cpu"], "in fp32, not in int8"),
        (["--seconds", "0"], "--seconds is 0, expected more than 0"),
        (["--seconds", "nan"], "--seconds is nan"),
        (["--threads", "0"], "--threads is 0"),
    ],
)
def test_refusals(bundle: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(["bench", str(bundle), *words]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) <= 2  # an empty progress bar, at most
    assert err.splitlines()[-1].startswith("error: ") and message in err
