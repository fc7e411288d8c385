"""What a loaded model gives, and that it gives it again."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cpp_ext
import runtime
from runtime.bundle import MANIFEST, Precision
from runtime.errors import InputError
from runtime.models.multimodal import Form


def test_generate(bundle: Path) -> None:
    model = runtime.load(bundle)
    images, joints = sample = model.generate(50, seed=3)
    assert sample._fields == ("image", "joints")
    assert images.dtype == np.uint8 and images.shape == (50, 16, 16, 3) and images.std() > 10
    assert joints.dtype == np.float32 and joints.shape == (50, 2)
    assert not np.array_equal(images, model.generate(50, seed=4).image)


def test_vectors_stay_within_their_exact_limits(bundle: Path) -> None:
    joints = runtime.load(bundle).generate(500).joints.astype(np.float64)
    low, high = np.array([(-1.2, 2.0), (-0.1, 0.7)]).T  # the network goes to ±2.5
    assert (joints >= low).all() and (joints <= high).all()
    assert np.abs(joints.min(0) - low).max() < 1e-6 and np.abs(joints.max(0) - high).max() < 1e-6


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("form", ["uint8", "float"])
def test_same_bytes_for_any_split(
    make_bundle: Callable[..., Path], tmp_path: Path, device: str, threads: int, form: Form
) -> None:
    model = runtime.load(
        make_bundle(tmp_path / "split", size=80, names=tuple("abcdefghij"), limits=((-2, 2),) * 10),
        device=device,
        threads=threads,
    )
    seed = 2**40 + 1
    whole = model.generate(64, seed, batch=64, form=form)
    for batch in (1, 2, 3, 8, 37, 100):
        parts = [model.generate(size, seed, first, batch, form) for first, size in ((0, 1), (1, 40), (41, 23))]
        streamed = [copy(part) for part in model.stream(64, batch, seed, form=form)]
        for name in ("image", "joints"):
            for made in (parts, streamed):
                assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in made]))


@pytest.mark.parametrize("device", ["cpu", "openvino"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_same_bytes_for_any_split_of_what_ships(device: str, precision: Precision) -> None:
    model = runtime.load("mgan-robot", device, precision)
    whole = model.generate(45, seed=9)
    for batch in (1, 7, 8, 33):
        streamed = [copy(part) for part in model.stream(45, batch, seed=9)]
        for name in ("image", "joints"):
            assert np.array_equal(getattr(whole, name), np.concatenate([getattr(part, name) for part in streamed]))


def test_more_than_memory_holds(bundle: Path) -> None:
    with pytest.raises(InputError, match="samples at once do not fit into memory .* use stream"):
        runtime.load(bundle).generate(2**62)


def test_forms_and_noise_of_one_s_own(bundle: Path) -> None:
    model = runtime.load(bundle)
    shown, raw = model.generate(5, seed=2), model.generate(5, seed=2, form="float")
    assert raw.image.dtype == np.float32 and raw.image.shape == (5, 3, 16, 16) and np.abs(raw.image).max() <= 1
    assert np.array_equal(cpp_ext.pack(raw.image), shown.image) and np.array_equal(raw.joints, shown.joints)
    own = model.from_noise(cpp_ext.noise(2, 0, 5, 32))
    assert np.array_equal(own.image, shown.image) and np.array_equal(own.joints, shown.joints)
    with pytest.raises(InputError, match=r"from_noise: input z is float32 \[5, 31\], expected float32 \[batch, 32\]"):
        model.from_noise(np.zeros((5, 31), np.float32))
    with pytest.raises(InputError, match="form is 'png', expected uint8 or float"):
        model.generate(1, form="png")  # type: ignore[arg-type]


@pytest.mark.parametrize("device", ["cpu", "openvino"])
def test_one_model_in_many_threads(bundle: Path, device: str) -> None:
    model = runtime.load(bundle, device)
    firsts = range(0, 160, 10)
    expected = [model.generate(10, seed=1, first=first, batch=4) for first in firsts]
    fresh = runtime.load(bundle, device)  # whose buckets are made by whoever comes first
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda first: fresh.generate(10, seed=1, first=first, batch=9), firsts))
        streamed = list(pool.map(lambda first: [copy(s) for s in fresh.stream(10, 4, 1, first)], firsts))
    for want, whole, parts in zip(expected, made, streamed, strict=True):
        assert np.array_equal(want.image, whole.image) and np.array_equal(want.joints, whole.joints)
        assert np.array_equal(want.image, np.concatenate([part.image for part in parts]))


def copy(sample: Any) -> Any:
    return type(sample)(*(array.copy() for array in sample))


def test_same_bytes_in_another_process(bundle: Path) -> None:
    code = f"import runtime, hashlib; s = runtime.load({str(bundle)!r}).generate(9, seed=5)\n"
    code += "print(hashlib.sha256(s.image.tobytes() + s.joints.tobytes()).hexdigest())"
    digests = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "count is 0, expected a whole number from 1"),
        ({"count": 2.0}, "count is 2.0"),
        ({"count": True}, "count is True"),
        ({"count": 1, "seed": -1}, "seed is -1"),
        ({"count": 1, "seed": 2**64}, "seed is 18446744073709551616"),
        ({"count": 2, "first": 2**64 - 1}, "first is 18446744073709551615"),
        ({"count": 1, "batch": 0}, "batch is 0"),
    ],
)
def test_bad_arguments(bundle: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        runtime.load(bundle).generate(**arguments)


def test_unknown_model(bundle: Path) -> None:
    path = bundle / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": "translator"}))
    with pytest.raises(InputError, match="model 'translator' is not one of multimodal, fuser; upgrade awase"):
        runtime.load(bundle)


def test_graph_that_is_no_generator(bundle: Path) -> None:
    path = bundle / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["graphs"][0]["outputs"][0]["range"] = [0.0, 1.0]
    path.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r"output image must be an image in \[-1, 1\]"):
        runtime.load(bundle)
