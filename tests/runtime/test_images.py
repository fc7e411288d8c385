"""Pictures of any format become RGB of 8 bits, upright, on white."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from runtime.errors import InputError
from runtime.images import as_rgb, fit, fitted, read_picture

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)


def saved(path: Path, array: np.ndarray, exif: int = 0, **options: object) -> Path:
    image = pytest.importorskip("PIL.Image")
    made, notes = image.fromarray(array), image.Exif()
    if exif:
        notes[0x112] = exif
        options["exif"] = notes.tobytes()
    made.save(path, **options)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tiff", "a.webp"])
def test_formats(tmp_path: Path, name: str) -> None:
    options = {"lossless": True} if name == "a.webp" else {}
    assert np.array_equal(read_picture(saved(tmp_path / name, RGB, **options)), RGB)
    assert (
        np.array_equal(read_picture(str(saved(tmp_path / name, RGB[..., 0])))[..., 2], RGB[..., 0]) or name == "a.webp"
    )


def test_sixteen_bits(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), RGB[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_picture(tmp_path / "a.png"), RGB)
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(as_rgb(ramp)[..., 0], np.round(ramp / 257))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(tmp_path: Path, orientation: int) -> None:
    """As Pillow turns it; also where it is transparent, which OpenCV itself does not turn."""
    image, ops = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
    smooth = cv2.resize(RGB[:2, :3], (32, 24), interpolation=cv2.INTER_CUBIC)
    path = saved(tmp_path / "a.jpg", smooth, orientation, quality=95)
    expected = np.asarray(ops.exif_transpose(image.open(path)), np.int64)
    read = read_picture(path)
    assert read.shape == expected.shape and np.abs(read - expected).mean() < 2
    alpha = np.full((*RGB.shape[:2], 1), 255, np.uint8)
    alpha[:5, :7] = 0
    path = saved(tmp_path / "a.png", np.concatenate([RGB, alpha], axis=2), orientation)
    turned = np.asarray(ops.exif_transpose(image.open(path)))
    assert np.array_equal(read_picture(path), np.where(turned[..., 3:] == 0, 255, turned[..., :3]))


def test_transparent_is_white() -> None:
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [10, 20, 30, 51]]], np.uint8)
    assert as_rgb(rgba).tolist() == [[[10, 20, 30], [255, 255, 255], [206, 208, 210]]]


def test_the_middle_square_is_taken_and_resized() -> None:
    assert np.array_equal(fit(RGB, 20), RGB[:, 5:25])
    assert np.array_equal(fit(RGB.swapaxes(0, 1), 20), RGB[:, 5:25].swapaxes(0, 1))
    halved = RGB[:, 5:25].reshape(10, 2, 10, 2, 3).mean(axis=(1, 3))
    assert np.abs(fit(RGB, 10) - halved).max() <= 0.5  # each pixel the mean of its area
    assert fit(RGB[:1, :1], 7).shape == (7, 7, 3) and (fit(RGB[:1, :1], 7) == RGB[0, 0]).all()
    grown = fit(RGB, 40)
    assert grown.shape == (40, 40, 3) and np.abs(fit(grown, 20).astype(int) - RGB[:, 5:25]).mean() < 20
    assert fitted([RGB, RGB[:9], RGB[..., 0]], 8).shape == (3, 8, 8, 3)


def test_what_is_no_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", RGB)
    for data in (b"", b"text", path.read_bytes()[:40]):
        (tmp_path / "bad.png").write_bytes(data)
        with pytest.raises(InputError, match="bad.png is no whole picture of a format that OpenCV reads"):
            read_picture(tmp_path / "bad.png")
    with pytest.raises(InputError, match="none.png is missing, expected a picture's file"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_picture(tmp_path)
    with pytest.raises(InputError, match="cannot be read: embedded null"):
        read_picture("a\0b")
    cv2.imwrite(str(tmp_path / "float.tiff"), RGB.astype(np.float32))
    with pytest.raises(InputError, match=r"float.tiff is float32 \[20, 30, 3\], expected uint8 \(or uint16\)"):
        read_picture(tmp_path / "float.tiff")
    for array in (RGB[None], RGB[:0], RGB[..., :2], RGB > 5):
        with pytest.raises(InputError, match="the picture is"):
            as_rgb(array)
