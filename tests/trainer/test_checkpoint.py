"""Checkpoints are whole or refused by name."""

import torch
from pytest import fixture, mark, raises

from runtime.errors import InputError
from trainer import checkpoint


@fixture
def saved(tmp_path):
    tensors = {
        "network/g/weight": torch.arange(12.0).reshape(3, 4),
        "ema/g/count": torch.tensor(3),
        "empty": torch.zeros(0),
    }
    path = checkpoint.path_at(tmp_path, 320)
    checkpoint.write(path, tensors, {"images": 320, "means": {"sum": 0.1}})
    return path, tensors


def test_round_trip(saved):
    path, tensors = saved
    read, meta = checkpoint.read(path)
    assert meta == {"images": 320, "means": {"sum": 0.1}}
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@mark.parametrize("part", [0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_is_refused_by_name(saved, part):
    path, _ = saved
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with raises(InputError, match=path.name):
        checkpoint.read(path)


def test_changed_bytes_are_refused_wherever_they_are(saved):
    path, tensors = saved
    data = path.read_bytes()
    for place in range(0, len(data), 7):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        try:
            read, meta = checkpoint.read(path)
        except InputError as error:
            assert path.name in str(error)
        else:  # a byte of padding: nothing that counts has changed
            assert meta["images"] == 320 and read.keys() == tensors.keys()
            assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_previous_is_used_and_the_damaged_one_named(saved, tmp_path):
    path, _ = saved
    later = checkpoint.path_at(tmp_path, 640)
    checkpoint.write(later, {"a": torch.ones(2)}, {"images": 640})
    later.write_bytes(later.read_bytes()[:50])
    said = []
    found = checkpoint.newest(tmp_path, said.append)
    assert found is not None
    assert found[1]["images"] == 320
    assert later.name in said[0]
    path.write_bytes(b"")
    with raises(InputError, match="--fresh"):
        checkpoint.newest(tmp_path, said.append)


def test_only_the_newest_are_kept(tmp_path):
    for images in range(1, 7):
        checkpoint.write(checkpoint.path_at(tmp_path, images), {"a": torch.ones(1)}, {"images": images})
    checkpoint.prune(tmp_path)
    kept = sorted(int(path.stem) for path in (tmp_path / "checkpoints").iterdir())
    assert kept == [4, 5, 6]


def test_optimizer_round_trip():
    layer = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(layer.parameters(), 0.01)
    x = torch.randn(2, 3, 8, 8)
    for _ in range(2):
        layer(x).square().mean().backward()
        optimizer.step()
    tensors, plain = checkpoint.optimizer_tensors(optimizer, "optimizer/g")
    fresh = torch.optim.Adam(layer.parameters(), 0.5)
    checkpoint.restore_optimizer(fresh, "optimizer/g", tensors, plain)
    assert fresh.param_groups[0]["lr"] == 0.01
    weight = layer.weight
    assert torch.equal(fresh.state[weight]["exp_avg"], optimizer.state[weight]["exp_avg"])
    assert fresh.state[weight]["exp_avg"].stride() == weight.stride()
