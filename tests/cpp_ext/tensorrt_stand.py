"""The engine with stand-ins for TensorRT and CUDA (`tensorrt_app`, compiled), bundles for it, and what it computes."""

import ctypes
import hashlib
from pathlib import Path

import engine_bundle
import engine_library
import numpy as np
import pytest
from engine_library import UNAVAILABLE, EngineError, tensor

from runtime.bundle import Bundle

APP = Path(__file__).parent / "tensorrt_app"
DATA = engine_bundle.model()
TENSORS = "input z 0 1 8 4\noutput image 0 3 8 8\noutput joints 0 2\n"
"""What the stand-in's engine has: z float32 [1 ... 8, 4]."""
TEXT = b"stand-in engine\n" + TENSORS.encode()


class Stand:
    """An engine library and the stand-in for TensorRT that it runs with."""

    def __init__(self, folder, engine, tensorrt, flavour, version):
        self.engine = engine_library.Engine(folder / "engine" / engine if flavour == "tensorrt" else folder / engine)
        self.tensorrt = str(folder / tensorrt)
        self.flavour, self.version = flavour, version
        self.nvinfer = ctypes.CDLL(self.tensorrt)
        self.nvinfer.stand_in_batches.restype = ctypes.c_char_p
        self.cuda = ctypes.CDLL(str(folder / "libstand_in_cudart.so"))

    def batches(self):
        """The batches that were run since the last call."""
        return [int(word) for word in self.nvinfer.stand_in_batches().split()]

    def alive(self):
        return self.cuda.stand_in_alive(0)

    def entry(self, text, file="generator.tensorrt.engine", **fields):
        """The manifest's entry of an engine whose file holds `text`."""
        return {
            "file": file,
            "bytes": len(text),
            "sha256": hashlib.sha256(text).hexdigest(),
            "graph": "generator",
            "precision": "fp32",
            "onnx_sha256": hashlib.sha256(DATA).hexdigest(),
            "flavour": self.flavour,
            "version": self.version,
            "compute_capabilities": ["SM80", "SM89"],
            "profile": {"z": [[1, 4], [4, 4], [8, 4]]},
            **fields,
        }

    def bundle(self, folder, text=TEXT, *, engines=None, **fields):
        """A bundle's folder with one engine, or with `engines`."""
        engines = [self.entry(text, **fields)] if engines is None else engines
        engine_bundle.write(folder, engine_bundle.manifest(DATA, engines=engines), generator_onnx=DATA)
        for entry in engines:
            (folder / entry["file"]).write_bytes(text)
        Bundle.open(folder)  # Python takes it too
        return folder

    def refusal(self, folder, status=UNAVAILABLE, **options):
        """Why a session does not open."""
        before = self.alive()
        with self.engine.bundle(folder) as bundle, pytest.raises(EngineError) as caught:
            with self.engine.session(bundle, **{"device": "tensorrt", "tensorrt": self.tensorrt, **options}):
                pass
        assert caught.value.status == status and self.alive() == before
        text = str(caught.value)
        assert "\n" not in text
        return text


class OnGpu:
    """An array's copy in the stand-in's device memory, from `offset` bytes on."""

    def __init__(self, stand, array, offset=0):
        self.stand, self.like, self.block = stand, array, ctypes.c_void_p()
        stand.cuda.cudaSetDevice(1)
        assert stand.cuda.cudaMalloc(ctypes.byref(self.block), ctypes.c_size_t(array.nbytes + offset)) == 0
        stand.cuda.cudaSetDevice(0)
        self.data = self.block.value + offset
        ctypes.memmove(self.data, array.ctypes.data, array.nbytes)

    def tensor(self):
        return tensor(self.like, data=self.data, device=1)

    def array(self):
        return np.frombuffer(ctypes.string_at(self.data, self.like.nbytes), np.float32).reshape(self.like.shape)

    def free(self):
        assert self.stand.cuda.cudaFree(self.block) == 0


def new(count):
    return [np.full((count, 3, 8, 8), 7, np.float32), np.full((count, 2), 7, np.float32)]


def expected(z):
    """What the stand-in computes."""
    image = np.tile(z, 48) + np.arange(192, dtype=np.float32) / 8
    joints = 2 * z[:, :2] + np.arange(2, dtype=np.float32) / 8
    return [image.reshape(-1, 3, 8, 8), joints]


def check(z, outputs):
    for got, want in zip(outputs, expected(z), strict=True):
        np.testing.assert_array_equal(got, want)
