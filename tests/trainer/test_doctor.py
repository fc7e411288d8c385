import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from trainer.__main__ import main
from trainer.data.doctor import PROBLEMS, check
from trainer.data.images import open_images

REAL = Path(os.environ.get("AWASE_REAL_DATA") or "/nonexistent")


def picture(seed=0, size=64):
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3)).astype(np.uint8)
    return Image.fromarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR))


@pytest.fixture
def ill(tmp_path):
    """A folder with every problem, and two healthy images."""
    path = tmp_path / "ill"
    (path / "sub").mkdir(parents=True)
    picture(0).save(path / "a.png")
    picture(1).save(path / "fine.jpg")
    picture(0).save(path / "sub" / "again.bmp")  # the same pixels in another format
    picture(2).save(path / "small.png")
    picture(2, 20).save(path / "small.png")
    picture(3).convert("L").save(path / "grey.png")
    Image.merge("RGB", [picture(4).convert("L")] * 3).save(path / "grey_in_rgb.png")
    picture(5).convert("CMYK").save(path / "print.jpg")
    cv2.imwrite(str(path / "deep.png"), np.array(picture(6)).astype(np.uint16) * 257)
    Image.fromarray(np.array(picture(7).convert("L")).astype(np.uint16) * 257).save(path / "deep.tif")
    frames = [picture(k) for k in (8, 9, 10)]
    frames[0].save(path / "moves.gif", save_all=True, append_images=frames[1:])
    frames[0].save(path / "moves.webp", save_all=True, append_images=frames[1:], lossless=True)
    frames[1].save(path / "pages.tif", save_all=True, append_images=frames[2:])
    content = (path / "fine.jpg").read_bytes()
    (path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (path / "empty.png").write_bytes(b"")
    (path / "text.webp").write_text("hello")
    (path / "lost.png").symlink_to(path / "nowhere.png")
    return path


EXPECTED = {
    "broken": ["cut.jpg", "empty.png", "lost.png", "text.webp"],
    "too_small": ["small.png"],
    "grey": ["deep.tif", "grey.png", "grey_in_rgb.png"],
    "cmyk": ["print.jpg"],
    "sixteen_bit": ["deep.png", "deep.tif"],
    "animated": ["moves.gif", "moves.webp", "pages.tif"],
    "duplicate": ["sub/again.bmp"],
    "unlisted": [],
    "missing": [],
}


def test_every_problem_by_name(ill):
    report = check(str(ill), workers=3)
    assert {problem: [entry["name"] for entry in report["problems"][problem]] for problem in PROBLEMS} == EXPECTED
    assert report["counts"] == {problem: len(names) for problem, names in EXPECTED.items()}
    assert report["images"] == 16
    (twin,) = report["problems"]["duplicate"]
    assert twin["of"] == "a.png" and "a.png" in twin["what"]
    said = {entry["name"]: entry["what"] for entries in report["problems"].values() for entry in entries}
    assert "truncated" in said["cut.jpg"].lower() and said["lost.png"] == "No such file or directory"
    assert said["text.webp"] == "it is no image that can be read" and "20x20" in said["small.png"]
    assert said["moves.gif"] == "3 pictures in one file"


def test_the_command(ill, capsys):
    assert main(["data", "check", str(ill)]) == 1
    talk = capsys.readouterr()
    assert json.loads(talk.out)["counts"]["broken"] == 4
    assert "duplicate: sub/again.bmp: the same as a.png" in talk.err
    assert "16 images read: 4 broken, 1 too small, 3 grey" in talk.err
    for name in {name for names in EXPECTED.values() for name in names}:
        assert f"{name}: " in talk.err


def test_all_well_is_0(tmp_path, capsys):
    for k in range(3):
        picture(k).save(tmp_path / f"{k}.png")
    assert main(["data", "check", str(tmp_path)]) == 0
    talk = capsys.readouterr()
    report = json.loads(talk.out)
    assert report["images"] == 3 and not any(report["counts"].values()) and "3 images read: all well" in talk.err
    assert main(["data", "check", str(tmp_path), "--size", "128"]) == 0
    assert main(["data", "check", str(tmp_path), "--size", "129"]) == 1
    assert main(["data", "check", str(tmp_path), "--crop", "65"]) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data"], "check"),
        (["data", "chekc", "."], "chekc"),
        (["data", "check", "/nonexistent"], "no such folder"),
        (["data", "check", ".", "--size", "0"], "--size: got 0, expected 1 to"),
        (["data", "check", ".", "--crop", "-1"], "--crop: got -1"),
        (["data", "check", ".", "--workers", "-1"], "workers: got -1"),
        (["data", "check", "celeba:/nonexistent"], "no img_align_celeba/ in it"),
    ],
)
def test_a_wrong_call_is_2_and_one_line(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture().save(tmp_path / "a.png")
    assert main(words) == 2
    talk = capsys.readouterr()
    assert talk.out == "" and said in talk.err and talk.err.count("\n") == 1 and talk.err.startswith("error: ")


def test_what_the_doctor_passes_can_be_opened(ill, tmp_path):
    for entry in check(str(ill))["problems"]["broken"] + check(str(ill))["problems"]["too_small"]:
        (ill / entry["name"]).unlink()
    assert len(open_images(str(ill), 64, cache=tmp_path / "cache")) == 11


def test_a_telephones_two_views_are_one_photograph(tmp_path):
    picture(0).save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[picture(1)])
    assert not any(check(str(tmp_path))["counts"].values())


def test_an_animation_broken_after_its_first_picture(tmp_path):
    noise = [Image.fromarray(np.random.default_rng(k).integers(0, 256, (64, 64, 3)).astype(np.uint8)) for k in (0, 1)]
    noise[0].save(tmp_path / "a.webp", save_all=True, append_images=noise[1:], lossless=True)
    content = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(content[:-500])
    report = check(str(tmp_path))
    assert report["counts"]["broken"] + report["counts"]["animated"] == 1


def test_celeba_and_its_table(tmp_path, capsys):
    images = tmp_path / "img_align_celeba"
    images.mkdir()
    for k in (1, 2, 4):
        picture(k, 89).save(images / f"00000{k}.jpg")
    rows = "".join(f"00000{k}.jpg -1  1\n" for k in (1, 2, 3))
    (tmp_path / "list_attr_celeba.txt").write_text(f"3\nBald Smiling \n{rows}")
    assert main(["data", "check", f"celeba:{tmp_path}"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in report["problems"]["unlisted"]] == ["000004.jpg"]
    assert [entry["name"] for entry in report["problems"]["missing"]] == ["000003.jpg"]
    assert report["images"] == 3 and sum(report["counts"].values()) == 2


@pytest.mark.skipif(not (REAL / "pomeranian").is_dir(), reason="AWASE_REAL_DATA names no folder with pomeranian")
def test_real_photographs_are_well():
    report = check(str(REAL / "pomeranian"))
    assert report["images"] == 196 and not any(report["counts"].values())
