import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.torch import load_file, save_file

from cpp_ext import ssim
from runtime.errors import InputError
from trainer.metrics.lpips import LAYERS, open_lpips
from trainer.metrics.reconstruction import evaluate
from trainer.networks.backbones import AlexNet

REAL_WEIGHTS = Path(os.environ.get("AWASE_WEIGHTS") or "/nonexistent")
WIDTHS = (64, 192, 384, 256, 256)


@pytest.fixture(scope="module")
def lpips_file(tmp_path_factory):
    """Random weights in the shape of LPIPS's."""
    torch.manual_seed(0)
    linear = {f"lin{k}.weight": torch.rand(1, width, 1, 1) for k, width in enumerate(WIDTHS)}
    path = tmp_path_factory.mktemp("lpips") / "alexnet_lpips.safetensors"
    save_file({key: value.half() for key, value in AlexNet().state_dict().items()} | linear, path)
    return path


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.delenv("AWASE_WEIGHTS", raising=False)


def pair(n=3, height=48, width=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 3, height, width, generator=generator) * 2 - 1 for _ in range(2))


# --- LPIPS on AlexNet once more, in float64 NumPy ---


def windows(x, kernel, stride):
    return sliding_window_view(x, (kernel, kernel), axis=(2, 3))[:, :, ::stride, ::stride]


def convolve(x, weight, bias, stride, padding):
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    return (
        np.einsum("nchwij,dcij->ndhw", windows(x, weight.shape[2], stride), weight, optimize=True) + bias[:, None, None]
    )


def plain_lpips(a, b, state):
    state = {key: value.double().numpy() for key, value in state.items()}
    shift, scale = np.array([-0.030, -0.088, -0.188]), np.array([0.458, 0.448, 0.450])
    layers = []
    for x in (a, b):
        x = (x.double().numpy() - shift[:, None, None]) / scale[:, None, None]
        layers.append([])
        for index, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if index in (3, 6):
                x = windows(x, 3, 2).max((4, 5))
            weight, bias = state[f"features.{index}.weight"], state[f"features.{index}.bias"]
            x = np.maximum(convolve(x, weight, bias, stride, padding), 0)
            layers[-1].append(x / (np.sqrt((x**2).sum(1, keepdims=True)) + 1e-10))
    total = 0
    for k, (x, y) in enumerate(zip(*layers, strict=True)):
        total = total + (state[f"lin{k}.weight"] * (x - y) ** 2).sum(1).mean((1, 2))
    return total


def test_is_the_equation_in_numpy(lpips_file):
    a, b = pair()
    distance = open_lpips(lpips_file)
    assert distance.name == "lpips_alex"
    found = distance(a, b)
    assert found.dtype == torch.float32 and found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), plain_lpips(a, b, load_file(lpips_file)), rtol=2e-5)


@pytest.mark.skipif(
    not (REAL_WEIGHTS / "alexnet_lpips.safetensors").is_file(), reason="AWASE_WEIGHTS has no alexnet_lpips.safetensors"
)
def test_real_weights_are_the_equation_too_and_order_distortions():
    path = REAL_WEIGHTS / "alexnet_lpips.safetensors"
    a, b = pair(2, 64, 64)
    distance = open_lpips()
    np.testing.assert_allclose(distance(a, b).numpy(), plain_lpips(a, b, load_file(path)), rtol=1e-4)
    # A picture of shapes, blurred more and more.
    picture = np.full((64, 64, 3), 230, np.uint8)
    cv2.circle(picture, (30, 34), 18, (200, 80, 40), -1)
    cv2.rectangle(picture, (8, 8), (30, 20), (30, 120, 60), -1)
    blurred = [picture, *(cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (0.7, 1.5, 4))]
    images = torch.from_numpy(np.stack(blurred)).permute(0, 3, 1, 2) / 127.5 - 1
    scores = distance(images[:1].expand(4, -1, -1, -1), images)
    assert scores[0] == 0 and (scores.diff() > 0.01).all()


@pytest.mark.skipif(
    not (REAL_WEIGHTS / "vgg16_lpips.safetensors").is_file(), reason="AWASE_WEIGHTS has no vgg16_lpips.safetensors"
)
def test_vgg_has_its_own_name():
    a, b = pair(1, 32, 32)
    distance = open_lpips(net="vgg")
    assert distance.name == "lpips_vgg" and distance.layers == LAYERS["vgg16"]
    assert distance(a, b) > 0.1 and distance(a, a) == 0


def test_does_not_depend_on_the_batch_the_order_or_autocast(lpips_file):
    distance = open_lpips(lpips_file)
    a, b = pair(40, 32, 32)
    scores = distance(a, b)
    torch.testing.assert_close(torch.cat([distance(a[n : n + 1], b[n : n + 1]) for n in (0, 31, 32, 39)]),
                               scores[[0, 31, 32, 39]])  # fmt: skip
    torch.testing.assert_close(distance(b, a), scores)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(distance(a, b), scores)
    a.requires_grad_()
    assert not distance(a, b).requires_grad


def test_source_says_which_file(lpips_file):
    source = open_lpips(lpips_file).source
    assert source["file"] == lpips_file.name and len(source["sha256"]) == 64 and source["version"] == "0.1"
    json.dumps(source)


def test_takes_torchvisions_file_with_lpips_own(lpips_file, tmp_path, monkeypatch):
    state = load_file(lpips_file)
    torch.save({k: v.float() for k, v in state.items() if "features" in k}, tmp_path / "alexnet-owt-7be5be79.pth")
    linear = {k.replace(".weight", ".model.1.weight"): v for k, v in state.items() if "lin" in k}
    torch.save(linear, tmp_path / "alex.pth")
    expected = open_lpips(lpips_file)(*pair())
    monkeypatch.setenv("AWASE_WEIGHTS", str(tmp_path))
    for given in (None, tmp_path, tmp_path / "alex.pth"):
        distance = open_lpips(given)
        assert distance.name == "lpips_alex" and distance.source["linear_file"] == "alex.pth"
        assert distance.source["file"] == "alexnet-owt-7be5be79.pth"
        torch.testing.assert_close(distance(*pair()), expected)


def test_refuses_bad_weights_nets_and_images(lpips_file, tmp_path, nowhere):
    state = load_file(lpips_file)
    save_file(state | {"lin2.weight": torch.ones(1, 5, 1, 1)}, tmp_path / "five.safetensors")
    save_file({k: v for k, v in state.items() if k != "lin4.weight"}, tmp_path / "four.safetensors")
    for name, said in (
        ("five.safetensors", r"lin2.weight is \[1, 5, 1, 1\], expected LPIPS's \[1, 384, 1, 1\]"),
        ("four.safetensors", "lin4.weight is missing"),
        ("none.safetensors", "expected a file of weights"),
    ):
        with pytest.raises(InputError, match=said):
            open_lpips(tmp_path / name)
    with pytest.raises(InputError, match="LPIPS network 'squeeze'"):
        open_lpips(lpips_file, net="squeeze")
    distance = open_lpips(lpips_file)
    a, b = pair()
    with pytest.raises(InputError, match="expected both alike"):
        distance(a, b[:1])
    with pytest.raises(InputError, match="images of 16x40"):
        distance(a[:, :, :16], b[:, :, :16])


# --- Without its weights ---


def test_without_weights_efficientnet_stands_in_under_its_own_name(nowhere):
    distance = open_lpips()
    assert distance.name == "efficientnet_lite0_distance"
    assert distance.source["name"] == "efficientnet-lite0"
    a, b = pair(2, 64, 64)
    features = distance.backbone(torch.cat([a, b]), distance.layers)
    expected = 0
    for layer in distance.layers:
        x = features[layer].double().numpy()
        x = x / np.sqrt((x**2).sum(1, keepdims=True))
        expected = expected + ((x[:2] - x[2:]) ** 2).sum(1).mean((1, 2)) / len(distance.layers)
    np.testing.assert_allclose(distance(a, b).numpy(), expected, rtol=1e-4)
    assert (distance(a, a) == 0).all() and (expected > 0.01).all() and (expected < 4).all()


# --- Reconstruction ---


def test_reconstruction_scores_with_their_protocol(nowhere):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (70, 5, 5, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    rebuilt = np.clip(images + random.normal(0, 20, images.shape), 0, 255).astype(np.uint8)
    distance = open_lpips()
    result = evaluate(images, rebuilt, distance)
    values = ssim(images, rebuilt)
    assert result["ssim"] == pytest.approx(values.mean())
    assert result["ssim_standard_error"] == pytest.approx(values.std(ddof=1) / np.sqrt(70))
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2) / 127.5 - 1 for x in (images, rebuilt))
    assert result[distance.name] == pytest.approx(distance(a, b).double().mean().item(), rel=1e-5)
    assert result["count"] == 70 and result["size"] == [40, 40]
    assert result["protocol"][distance.name]["sha256"] == distance.source["sha256"]
    assert result["direction"] == {"ssim": "higher is better", distance.name: "lower is better"}
    json.dumps(result)
    same = evaluate(images[:4], images[:4], distance)
    assert same["ssim"] == 1 and same[distance.name] == 0


def test_reconstruction_refuses_other_arrays(nowhere):
    distance = open_lpips()
    images = np.zeros((4, 32, 32, 3), np.uint8)
    for other in (images[:3], images[:, :16], images[..., :1]):
        with pytest.raises(InputError, match="expected both alike"):
            evaluate(images, other, distance)
    with pytest.raises(InputError, match="N at least 2"):
        evaluate(images[:1], images[:1], distance)
    with pytest.raises(InputError, match="expected uint8"):
        evaluate(images, images.astype(np.float32), distance)
