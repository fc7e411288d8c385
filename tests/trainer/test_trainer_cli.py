"""What a user types wrong is answered in one line, with status 2, and nothing is left behind."""

import json

import numpy as np
import pytest

from trainer import run
from trainer.__main__ import main
from trainer.recipes.mgan import PRESETS

TINY = ["--width", "4", "--d-width", "4", "--hidden", "16", "--batch", "8", "--total-kimg", "0.016", "--threads", "1",
        "--metric-kimg", "0", "--device", "cpu"]  # fmt: skip


def said(capsys, *arguments) -> str:
    """The one error line of a command that must fail."""
    capsys.readouterr()
    assert main([str(word) for word in arguments]) == 2
    err = capsys.readouterr().err.strip()
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nosuch"], ["'nosuch'", "mgan"]),
        (["mgan", "--preset", "huge"], ["'huge'", "demo", "cpu", "gpu", "paper"]),
        (["mgan", "--bacth", "8"], ["--bacth"]),
        (["mgan", "--batch", "many"], ["--batch", "many"]),
        (["mgan", "--batch", "1"], ["--batch is 1", "at least 2"]),
        (["mgan", "--tick-kimg", "0"], ["--tick-kimg is 0"]),
        (["mgan", "--total-kimg", "nan"], ["--total-kimg is nan"]),
        (["mgan", "--name", "a/b"], ["--name is 'a/b'"]),
        (["mgan", "--lr", "-1"], ["--lr is -1"]),
        (["mgan", "--beta2", "2"], ["--beta2 is 2"]),
        (["mgan", "--seed", "99999999999999999999"], ["--seed is 99999999999999999999", "below 2^32"]),
        (["mgan", "--modality-weights", "joints", "-5"], ["joints -5"]),
        (["mgan", "--data", "x", "--joints", "a", "b"], ["--robot"]),
        (["mgan", "--margin", "1.5"], ["--margin is 1.5", "from 0.1 to 1"]),
        (["mgan", "--data", "nowhere"], ["nowhere", "no such file or folder"]),
        (["mgan", "--robot", "nowhere.urdf", "--camera", "position=1,0,1", "target=0,0,0"], ["nowhere.urdf"]),
        (["mgan", "--joints", "Elbow"], ["'Elbow'", "LElbowYaw"]),
        (["report", "nowhere"], ["nowhere is no run"]),
        (["report"], ["report takes one run"]),
    ],
)
def test_wrong_arguments(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    line = said(capsys, *arguments)
    assert all(word in line for word in words), line
    assert not list(tmp_path.rglob("*.safetensors"))


def test_cuda_asked_for_and_absent(capsys, tmp_path, tiny):
    import torch

    if torch.cuda.is_available():
        pytest.skip("CUDA works here")
    arguments = [*TINY, "--data", tiny, "--runs", tmp_path]
    assert "--device is cuda" in said(capsys, "mgan", *arguments, "--device", "cuda")


def test_weights_of_an_unknown_modality(capsys, tmp_path, tiny):
    assert "nose" in said(capsys, "mgan", *TINY, "--data", tiny, "--runs", tmp_path, "--modality-weights", "nose", "2")


def test_a_bad_angle_stops_before_training(capsys, tmp_path, tiny):
    content = dict(np.load(tiny))
    content["joints"][7, 1] = np.nan
    np.savez(tmp_path / "bad.npz", **content)
    line = said(capsys, "mgan", *TINY, "--data", tmp_path / "bad.npz", "--runs", tmp_path / "runs")
    assert "row 7" in line or "[7" in line, line
    assert not (tmp_path / "runs").exists()


def test_train_dry_run_resume_and_refusals(capsys, tmp_path, tiny):
    command = ["mgan", *TINY, "--data", str(tiny), "--runs", str(tmp_path), "--name", "first"]

    # A dry run prints the options as JSON and leaves nothing behind.
    assert main([*command, "--dry-run"]) == 0
    assert json.loads(capsys.readouterr().out)["batch"] == 8
    assert not (tmp_path / "first").exists()

    # Training writes everything a run is made of.
    assert main(command) == 0
    path = tmp_path / "first"
    for name in ("options.json", "data.json", "stats.jsonl", "timing.jsonl", "report.html", "summary.json"):
        assert (path / name).exists(), name
    assert list((path / "samples").glob("*.png"))
    pytest.importorskip("tensorboard")
    assert list((path / "tensorboard").glob("events*"))
    page = (path / "report.html").read_text()
    assert page.count("data:image/png;base64") >= 4

    # Three modalities come back out of the finished run.
    assert run.finished_runs(tmp_path) == [path]
    (graph,) = run.open_run(path).graphs()
    assert [port.name for port in graph.outputs] == ["image", "side", "joints"]
    assert [list(port.shape) for port in graph.outputs] == [[3, 20, 24], [3, 16, 16], [3]]

    # Other options need another name; more images do not.
    assert "begun with batch = 8, now it is 16" in said(capsys, *command, "--batch", "16")
    assert main([*command, "--total-kimg", "0.032"]) == 0
    assert "going on with" in capsys.readouterr().err
    assert json.loads((path / "summary.json").read_text())["kimg"] == 0.032

    # The report can be written anew, and a run that is being trained is locked.
    (path / "report.html").unlink()
    assert main(["report", str(path)]) == 0
    assert (path / "report.html").exists()
    from trainer import loop

    with loop.lock(path):
        assert "another process" in said(capsys, *command)


def test_help_names_every_preset(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["mgan", "--help"])
    assert stop.value.code == 0
    page = capsys.readouterr().out
    assert "--mismatch" in page
    assert all(name in page for name in PRESETS)
