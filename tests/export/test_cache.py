"""Engines are kept by all they depend on; a damaged one is built anew."""

from pathlib import Path
from typing import Any

import pytest

from export import tensorrt
from export.cache import EngineCache, cache_folder
from runtime.bundle import Port

KEY = {"onnx_sha256": "0" * 64, "version": "1.7", "profile": {"z": ((1, 16), (8, 16), (64, 16))}}


def test_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWASE_CACHE", "/here")
    monkeypatch.setenv("XDG_CACHE_HOME", "/there")
    assert cache_folder() == Path("/here")
    monkeypatch.delenv("AWASE_CACHE")
    assert cache_folder() == Path("/there/awase")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "awase"


def test_kept_by_key(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "new" / "folder")
    assert cache.get(KEY) is None
    cache.put(KEY, b"engine")
    assert cache.get(dict(reversed(KEY.items()))) == b"engine"  # whatever the order
    for change in ({"version": "1.8"}, {"onnx_sha256": "1" * 64}, {"profile": {"z": ((1, 16), (8, 16), (65, 16))}}):
        assert cache.get(KEY | change) is None
    (file,) = (tmp_path / "new/folder/engines").iterdir()  # no temporary file is left
    for damaged in (b"", file.read_bytes()[:-1], file.read_bytes()[:20], file.read_bytes()[:-1] + b"E"):
        file.write_bytes(damaged)
        assert cache.get(KEY) is None
    cache.put(KEY, b"engine")
    assert cache.get(KEY) == b"engine"


def test_a_folder_that_cannot_be_used_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file")
    cache.put(KEY, b"engine")
    cache.put_timings("10.13", "NVIDIA H100", b"timings")
    assert cache.get(KEY) is None and cache.timings("10.13", "NVIDIA H100") == b""


def test_timings_by_version_and_gpu(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    cache.put_timings("10.13", "NVIDIA H100 80GB/HBM3", b"timings")
    assert cache.timings("10.13", "NVIDIA H100 80GB/HBM3") == b"timings"
    assert cache.timings("10.14", "NVIDIA H100 80GB/HBM3") == cache.timings("10.13", "NVIDIA L4") == b""
    assert [path.name for path in (tmp_path / "timings").iterdir()] == ["tensorrt-10.13-NVIDIA_H100_80GB_HBM3.cache"]


def test_builds_once(onnx_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorrt_rtx", reason="pip install awase[trt]")
    cache, z = EngineCache(tmp_path), [Port(name="z", shape=(16,), kind="noise")]
    built: list[Any] = []
    real = tensorrt._build
    monkeypatch.setattr(tensorrt, "_build", lambda *args: built.append(args) or real(*args))

    def build(batches: tensorrt.Batches = (1, 8, 64), capability: str = "SM89") -> tensorrt.Engine:
        return tensorrt.build(onnx_file, z, "tensorrt-rtx", [capability], batches, cache)

    first, second = build(), build()
    assert len(built) == 1 and not first.cached and second.cached and first.data == second.data
    assert not build((1, 4, 4)).cached and not build(capability="SM80").cached and len(built) == 3
    for file in (tmp_path / "engines").iterdir():
        file.write_bytes(file.read_bytes()[:-5])
    assert not build().cached and build().cached and len(built) == 4
