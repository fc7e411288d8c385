"""TensorRT sessions with stand-ins for the GPU: results, CUDA graphs, lanes, threads and memory."""

import gc
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from library_stand_ins import Machine, bundles_with_engine, compute, machines

import cpp_ext
from runtime.backends import tensorrt
from runtime.backends.lanes import buckets
from runtime.bundle import Bundle
from runtime.errors import InputError


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    yield from machines(monkeypatch)


@pytest.fixture
def with_engine(bundle: Path) -> Callable[..., Bundle]:
    return bundles_with_engine(bundle)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return np.asarray(cpp_ext.noise(seed, 0, count, 32))


def check(results: dict[str, np.ndarray], z: np.ndarray) -> None:
    expected = compute(z)
    assert results.keys() == expected.keys()
    for name, array in results.items():
        np.testing.assert_array_equal(array, expected[name])


# --- results ---


@pytest.mark.parametrize("rtx", [False, True])
@pytest.mark.parametrize("count", [1, 2, 8, 9, 63, 64, 65, 128, 200])
def test_any_batch(machine: Machine, with_engine: Any, rtx: bool, count: int) -> None:
    machine(rtx)
    flavour = "tensorrt-rtx" if rtx else "tensorrt"
    session = tensorrt.open_engine(with_engine(flavour=flavour), "generator")
    said = (session.backend, session.device, session.precision, session.overlap, session.largest)
    assert said == (flavour, "cuda:0", "fp32", 2, 64)
    z = noise(count)
    check(session.run({"z": z}), z)
    into = {"image": np.empty((count, 3, 16, 16), np.float32), "joints": np.empty((count, 2), np.float32)}
    z = noise(count, 1)
    results = session.run({"z": z}, into)
    check(results, z)
    assert results["image"] is into["image"]


def test_a_batch_runs_as_the_smallest_bucket_that_holds_it(machine: Machine, with_engine: Any) -> None:
    gpu, _, library = machine()
    library.tensors["z"].profile = ((4, 32), (8, 32), (24, 32))
    session = tensorrt.open_engine(with_engine(profile={"z": ((4, 32), (8, 32), (24, 32))}), "generator")
    assert buckets(4, 8, 24) == (4, 8, 16, 24) and buckets(1, 1, 1) == (1,) and buckets(3, 3, 3) == (3,)
    assert buckets(1, 8, 65536)[-2:] == (128, 256) and buckets(1, 600, 65536)[-2:] == (512, 600)
    for count in (1, 5, 24, 17):
        check(session.run({"z": noise(count)}), noise(count))
    executed = [event[2] for event in gpu.events if event[0] == "execute"]
    assert sorted(set(executed)) == [4, 8, 24]
    sent = [event[2] for event in gpu.events if event[0] == "to device"]
    assert sent == [1, 5, 24, 17]


def test_what_lies_beyond_a_batch_does_not_reach_it(machine: Machine, with_engine: Any) -> None:
    machine()
    session = tensorrt.open_engine(with_engine(), "generator")
    session.run({"z": np.full((64, 32), np.nan, np.float32)})
    check(session.run({"z": noise(33)}), noise(33))


def test_bad_feeds(machine: Machine, with_engine: Any) -> None:
    machine()
    session = tensorrt.open_engine(with_engine(), "generator")
    with pytest.raises(InputError, match="input z is float64"):
        session.run({"z": np.zeros((2, 32))})
    check(session.run({"z": noise(2)}), noise(2))  # the lanes are all back


# --- CUDA graphs ---


def test_each_bucket_is_captured_once_after_a_warm_run(machine: Machine, with_engine: Any) -> None:
    gpu, _, _ = machine()
    session = tensorrt.open_engine(with_engine(), "generator")
    with session.lane() as lane:
        for count in (8, 8, 7, 1, 8):
            check({name: host(lane, array) for name, array in run(lane, noise(count)).items()}, noise(count))
    names = [event[0] for event in gpu.events if event[0] == "execute" or event[0].startswith("cu")]
    captured = [
        "execute",
        "cuStreamBeginCapture_v2",
        "execute",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
    ]
    assert names == [*captured, "cuGraphLaunch", "cuGraphLaunch", *captured, "cuGraphLaunch"]


def run(lane: Any, z: np.ndarray) -> Any:
    staged = lane.gpu.pinned(z.shape, z.dtype)
    staged[...] = z
    lane.from_host(staged, lane.inputs["z"][: len(z)])
    return lane.run(len(z))


def host(lane: Any, array: Any) -> np.ndarray:
    out: np.ndarray = lane.gpu.pinned(array.shape, array.dtype)
    lane.to_host(array, out)
    lane.wait()
    return out


@pytest.mark.parametrize("function", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_without_graphs_where_they_cannot_be(
    machine: Machine, with_engine: Any, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    gpu, driver, _ = machine()
    driver.refuses = function
    session = tensorrt.open_engine(with_engine(), "generator")
    with caplog.at_level(logging.WARNING):
        for count in (1, 8, 200, 8):
            check(session.run({"z": noise(count)}), noise(count))
    (line,) = caplog.messages  # said once
    assert "without CUDA graphs" in line and f"{function}: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" in line
    assert not any(event[0] == "cuGraphLaunch" for event in gpu.events)


def test_rtx_makes_its_own_graphs(machine: Machine, with_engine: Any) -> None:
    gpu, _, library = machine(rtx=True)
    session = tensorrt.open_engine(with_engine(flavour="tensorrt-rtx"), "generator")
    for _ in range(3):
        check(session.run({"z": noise(8)}), noise(8))
    assert not any(event[0].startswith("cu") for event in gpu.events)
    (config,) = library.configs
    assert (config.cuda_graph_strategy, config.dynamic_shapes_kernel_specialization_strategy) == ("whole", "eager")
    assert (config.strategy, config.cache) == ("user managed", "cache")


# --- lanes ---


def test_the_next_piece_computes_while_one_is_read(machine: Machine, with_engine: Any) -> None:
    gpu, _, _ = machine()
    session = tensorrt.open_engine(with_engine(), "generator")
    z = noise(64 * 3)
    session.run({"z": z})
    gpu.events.clear()
    for part, arrays in session.pieces({"z": z}):
        check({name: array.copy() for name, array in arrays.items()}, z[part])
    order = [(event[0], event[1]) for event in gpu.events if event[0] in ("to device", "wait")]
    first, second = order[0][1], order[1][1]
    started = [("to device", first), ("to device", second), ("wait", first), ("to device", first), ("wait", second)]
    assert first != second and order[:5] == started


def test_an_abandoned_run_gives_its_lanes_back(machine: Machine, with_engine: Any) -> None:
    machine()
    session = tensorrt.open_engine(with_engine(), "generator")
    for _ in range(3):
        pieces = session.pieces({"z": noise(300)})
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    with session.lane(), session.lane():
        pass
    check(session.run({"z": noise(5)}), noise(5))


def test_threads_get_what_one_would(machine: Machine, with_engine: Any) -> None:
    machine()
    session = tensorrt.open_engine(with_engine(), "generator")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for count in (1, 5, 64, 150, 9):
                check(session.run({"z": noise(count, number)}), noise(count, number))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_memory_goes_with_the_session_in_whatever_thread(machine: Machine, with_engine: Any) -> None:
    gpu, _, _ = machine()
    held = [tensorrt.open_engine(with_engine(), "generator")]
    held[0].run({"z": noise(100)})
    assert gpu.live and gpu.graphs

    def forget() -> None:
        held.clear()
        gc.collect()

    thread = threading.Thread(target=forget)
    thread.start()
    thread.join()
    assert not gpu.live and not gpu.graphs and not gpu.streams and not gpu.leaks
