"""Real data: photographs of facades and their label maps as one MGAN; faces, seen through VGG-16, as a fusion."""

import dataclasses
import json
import os
from pathlib import Path

import cv2
import pytest
from tiny_fusion import tiny_options

from trainer import loop, run
from trainer.data.recording import Recording
from trainer.recipes.fusion import Fusion
from trainer.recipes.mgan import PRESETS, Mgan

DATA = Path(os.environ.get("AWASE_REAL_DATA") or "/nonexistent")
FACADES, FACES = DATA / "facades" / "train", DATA / "celeba"
WEIGHTS = Path(os.environ.get("AWASE_WEIGHTS") or "/nonexistent")


@pytest.mark.skipif(not FACADES.is_dir(), reason="AWASE_REAL_DATA names no folder with facades/train")
def test_facades_and_their_label_maps(tmp_path):
    for name in ("photo", "labels"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for k, path in enumerate(sorted(FACADES.glob("*.jpg"))[:40]):
        pair = cv2.resize(cv2.imread(str(path)), (96, 48), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / "data" / "photo" / f"{k}.png"), pair[:, :48])
        cv2.imwrite(str(tmp_path / "data" / "labels" / f"{k}.png"), pair[:, 48:])
    options = dataclasses.replace(
        PRESETS["demo"], name="facades", data=tmp_path / "data", runs=tmp_path, width=4, d_width=4, hidden=16, batch=8,
        total_kimg=3.2, tick_kimg=0.8, ema_kimg=0.2, device="cpu",
    )  # fmt: skip
    path = loop.train(Mgan, options)
    finished = run.open_run(path)
    made = finished.recipe.generate(finished.averaged, 64)
    real = Recording.read(tmp_path / "data").arrays
    for name in ("photo", "labels"):
        # Each modality has taken on its own colours, and not the other's.
        other = {"photo": "labels", "labels": "photo"}[name]
        means = {k: v.mean((0, 1, 2)) for k, v in (("made", made[name]), ("own", real[name]), ("other", real[other]))}
        assert abs(means["made"] - means["own"]).max() < 0.5 * abs(means["made"] - means["other"]).max()
    (graph,) = finished.graphs()
    assert [port.name for port in graph.outputs] == ["labels", "photo"]


@pytest.mark.skipif(not FACES.is_dir(), reason="AWASE_REAL_DATA names no folder with celeba")
@pytest.mark.skipif(not (WEIGHTS / "vgg16_lpips.safetensors").is_file(), reason="AWASE_WEIGHTS holds no VGG-16")
def test_faces_through_vgg(tmp_path):
    options = tiny_options(
        f"celeba:{FACES}", tmp_path, count=200, held_out=40, total_kimg=0.96,
        tick_kimg=0.12, pretrain=0.9, width=8, latent=60, perceptual="vgg16", content_reconstruction=0,
    )  # fmt: skip
    path = loop.train(Fusion, options)
    summary = json.loads((path / "summary.json").read_text())
    reconstruction = summary["metrics"]["reconstruction"]
    assert reconstruction["count"] == 40 and 0 < reconstruction["lpips_alex"] < 1
    assert reconstruction["protocol"]["lpips_alex"]["file"] == "alexnet_lpips.safetensors"
    stats = [json.loads(line) for line in (path / "stats.jsonl").read_text().splitlines()]
    assert stats[-1]["content"] > 0 and stats[-1]["style"] > 0
    assert stats[5]["reconstruction"] < 0.8 * stats[0]["reconstruction"]  # it learns faces
    sources = json.loads((path / "options.json").read_text())["sources"]
    assert sources["perceptual"]["name"] == "vgg16" and sources["distance"]["name"] == "alexnet"
