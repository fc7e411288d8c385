"""Engines that were built before, or refused, kept by all that they depend on; a damaged entry is as good as none."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def cache_folder() -> Path:
    """$AWASE_CACHE, else $XDG_CACHE_HOME/awase, else ~/.cache/awase."""
    own, shared = os.environ.get("AWASE_CACHE"), os.environ.get("XDG_CACHE_HOME")
    if own:
        return Path(own)
    return (Path(shared) if shared else Path.home() / ".cache") / "awase"


@dataclass(frozen=True)
class EngineCache:
    """A folder of engines, NAME.engine, each beginning with the SHA-256 of the rest.

    A folder that cannot be written or read is a cache that never has anything: an export does not fail for it.
    """

    folder: Path

    def get(self, key: Mapping[str, Any]) -> bytes | None:
        """The engine kept under `key` (JSON values); None if there is none or its checksum is wrong."""
        try:
            data = self._path(key).read_bytes()
        except OSError:
            return None
        digest, engine = data[:_DIGEST], data[_DIGEST:]
        return engine if hashlib.sha256(engine).digest() == digest else None

    def put(self, key: Mapping[str, Any], engine: bytes) -> None:
        """Keep an engine under `key`: whole or not at all, also if others write it at the same time."""
        self._write(self._path(key), hashlib.sha256(engine).digest() + engine)

    def refusal(self, key: Mapping[str, Any]) -> str:
        """Why there can be no engine under `key`; "" if that has not been kept."""
        try:
            return self._path(key).with_suffix(_REFUSAL).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def put_refusal(self, key: Mapping[str, Any], reason: str) -> None:
        """Keep why there can be no engine under `key`, so that nobody waits for the same refusal again."""
        self._write(self._path(key).with_suffix(_REFUSAL), reason.encode())

    def timings(self, version: str, gpu: str) -> bytes:
        """TensorRT's own timings of kernels on one kind of GPU; b"" if there are none yet."""
        try:
            return self._timings_path(version, gpu).read_bytes()
        except OSError:
            return b""

    def put_timings(self, version: str, gpu: str, timings: bytes) -> None:
        """Keep the timings for later builds."""
        self._write(self._timings_path(version, gpu), timings)

    def _path(self, key: Mapping[str, Any]) -> Path:
        canonical = json.dumps(key, sort_keys=True, separators=(",", ":"))
        return self.folder / "engines" / f"{hashlib.sha256(canonical.encode()).hexdigest()}.engine"

    def _timings_path(self, version: str, gpu: str) -> Path:
        plain = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in f"{version}-{gpu}")
        return self.folder / "timings" / f"tensorrt-{plain}.cache"

    def _write(self, path: Path, data: bytes) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
                try:
                    file.write(data)
                    file.close()
                    Path(file.name).replace(path)
                except OSError:
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError:
            return


_DIGEST = hashlib.sha256().digest_size
_REFUSAL = ".refusal"
