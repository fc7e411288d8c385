"""Real pairs: photographs of facades and their label maps, two image modalities of one MGAN."""

import dataclasses
import os
from pathlib import Path

import cv2
import pytest

from trainer import loop, run
from trainer.data.recording import Recording
from trainer.recipes.mgan import PRESETS, Mgan

FACADES = Path(os.environ.get("AWASE_REAL_DATA") or "/nonexistent") / "facades" / "train"


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
