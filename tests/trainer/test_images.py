import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from runtime.errors import InputError
from trainer.data import celeba, folder, pack
from trainer.data.images import Attributes, open_images

REAL = Path(os.environ.get("AWASE_REAL_DATA") or "/nonexistent")


def picture(height=24, width=32, seed=0):
    """A smooth picture in colour, uint8 [height, width, 3], which JPEG keeps well."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def opened(data, size=24, **options):
    return open_images(str(data), size, workers=2, **options)


@pytest.fixture
def images(tmp_path):
    """A folder of four images, two of them in a folder of it."""
    for k, name in enumerate(("b.png", "a.png", "more/a.png", "more/deep/c.PNG")):
        save(tmp_path / "images" / name, picture(seed=k))
    return tmp_path / "images"


@pytest.fixture
def reads(monkeypatch):
    """How often a folder was truly read."""
    counts = []
    read = folder.read
    monkeypatch.setattr(folder, "read", lambda *given: counts.append(len(given[1])) or read(*given))
    return counts


def test_a_folder_and_the_folders_in_it(images, tmp_path, capsys):
    (images / "notes.txt").write_text("no image")
    (images / ".hidden.png").write_bytes(b"nothing")
    save(images / ".trash" / "x.png", picture())
    found = opened(images, cache=tmp_path / "cache")
    assert found.names == ("a.png", "b.png", "more/a.png", "more/deep/c.PNG") and len(found) == 4
    assert found.images.shape == (4, 24, 24, 3) and found.images.dtype == np.uint8 and found.attributes is None
    assert isinstance(found.images, np.memmap) and not found.images.flags.writeable
    np.testing.assert_array_equal(found.images[1], picture(seed=0)[:, 4:28])
    assert found.description["kind"] == "folder" and str(tmp_path) not in json.dumps(found.description)
    talk = capsys.readouterr()
    assert talk.out == "" and "reading images" in talk.err
    assert opened(images, count=2, cache=tmp_path / "cache").names == ("a.png", "b.png")


@pytest.mark.parametrize("ending", ["jpg", "JPEG", "png", "webp", "bmp", "tif", "tiff", "gif"])
def test_every_format(ending, tmp_path):
    save(
        tmp_path / "images" / f"one.{ending}",
        picture(),
        **({"quality": 95} if ending in ("jpg", "JPEG", "webp") else {}),
    )
    (found,) = opened(tmp_path / "images", cache=tmp_path / "cache").images
    far = np.abs(found.astype(int) - picture()[:, 4:28])
    exact = ending in ("png", "bmp", "tif", "tiff")
    assert far.max() == 0 if exact else far.mean() < (8 if ending == "gif" else 3)


def stored(tmp_path, image, name="one.png", **options):
    image.save(tmp_path / name, **options)
    return folder.pixels(folder.load(tmp_path / name))


def test_every_way_of_storing_becomes_rgb(tmp_path):
    rgb = picture()
    grey = np.array(Image.fromarray(rgb).convert("L"))
    three = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(stored(tmp_path, Image.fromarray(grey)), three)
    np.testing.assert_array_equal(stored(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257)), three)
    deep = stored(tmp_path, Image.fromarray(grey.astype(np.uint16) * 257), "one.tif")
    np.testing.assert_array_equal(deep, three)
    # 16 bits are scaled, not cut off: half of 65535 is half of 255.
    assert stored(tmp_path, Image.fromarray(np.full((2, 2), 32768, np.uint16))).max() == 128
    cmyk = stored(tmp_path, Image.fromarray(rgb).convert("CMYK"), "one.jpg", quality=98)
    assert np.abs(cmyk.astype(int) - rgb).mean() < 4
    alpha = np.full((24, 32, 1), 255, np.uint8)
    alpha[:12] = 0
    alpha[12:14] = 51
    clear = stored(tmp_path, Image.fromarray(np.concatenate([rgb, alpha], axis=2)))
    assert (clear[:12] == 255).all() and (clear[14:] == rgb[14:]).all()
    np.testing.assert_allclose(clear[12:14], 0.2 * rgb[12:14] + 0.8 * 255, atol=1)
    palette = Image.fromarray(rgb).quantize(8)
    np.testing.assert_array_equal(stored(tmp_path, palette), np.array(palette.convert("RGB")))
    frames = [Image.fromarray(picture(seed=k)).quantize(64) for k in range(3)]
    first = stored(tmp_path, frames[0], "one.gif", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(first, np.array(frames[0].convert("RGB")))
    with pytest.raises(folder.BadImage, match="floating point"):
        stored(tmp_path, Image.fromarray(np.zeros((4, 4), np.float32)), "one.tif")
    with pytest.raises(folder.BadImage, match="32 bits"):
        stored(tmp_path, Image.fromarray(np.full((4, 4), 1 << 20, np.int32)), "one.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_as_exif_says(orientation, tmp_path):
    upright = picture()
    turn = {2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2)}
    turn |= {6: np.rot90, 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1)}
    as_stored = turn.get(orientation, np.asarray)(upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    got = stored(tmp_path, Image.fromarray(np.ascontiguousarray(as_stored)), exif=exif)
    np.testing.assert_array_equal(got, upright)


def test_the_centred_square_and_its_size():
    image = picture(60, 90)
    np.testing.assert_array_equal(folder.square(image, 60), image[:, 15:75])
    np.testing.assert_array_equal(folder.square(image, 40, 40), image[10:50, 25:65])
    halves = image[:, 15:75].reshape(30, 2, 30, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(folder.square(image, 30), halves, atol=0.51)
    enlarged = cv2.resize(image[10:50, 25:65], (64, 64), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(folder.square(image, 64, 40), enlarged)


def test_half_size_celeba_is_large_enough_for_64_and_128():
    assert not folder.too_small(89, 109, 64, 0) and not folder.too_small(89, 109, 128, 0)
    assert "89x109 pixels, expected at least 128" in folder.too_small(89, 109, 256, 0)
    assert "expected at least the crop's 108" in folder.too_small(89, 109, 64, 108)
    assert "a crop of 20 pixels" in folder.too_small(89, 109, 64, 20)
    assert not folder.too_small(32, 32, 64, 0) and folder.too_small(31, 31, 64, 0)


def test_bad_images_are_counted_and_one_is_named(images, tmp_path):
    whole = (images / "a.png").read_bytes()
    (images / "more" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (images / "more" / "text.jpg").write_text("not an image")
    (images / "gone.png").symlink_to(images / "nowhere.png")
    save(images / "small.png", picture(8, 8))
    with pytest.raises(InputError) as said:
        opened(images, cache=tmp_path / "cache")
    assert "4 of 8 images cannot be used, the first is gone.png" in str(said.value)
    assert f"`python -m trainer data check {images} --size 24` lists them all" in str(said.value)
    assert list((tmp_path / "cache").iterdir()) == []  # nothing half-written


@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "bmp", "tif", "gif"])
def test_a_file_cut_short_is_never_read_as_whole(ending, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    path = tmp_path / f"one.{ending}"
    save(path, noise)
    content = path.read_bytes()
    for kept in (0, 1, 10, 40, len(content) // 4, len(content) // 2, len(content) * 9 // 10):
        path.write_bytes(content[:kept])
        with pytest.raises(folder.BadImage):
            folder.pixels(folder.load(path))


def test_kept_until_something_changes(images, tmp_path, reads):
    cache = tmp_path / "cache"
    first = opened(images, cache=cache)
    again = opened(images, cache=cache)
    assert reads == [4] and again.description == first.description
    np.testing.assert_array_equal(again.images, first.images)
    opened(images, 12, cache=cache)
    opened(images, crop=20, cache=cache)
    opened(images, count=3, cache=cache)
    assert reads == [4, 4, 4, 3]
    save(images / "a.png", picture(seed=9))
    changed = opened(images, cache=cache)
    assert (changed.images[0] != first.images[0]).any() and (changed.images[1:] == first.images[1:]).all()
    os.utime(images / "b.png", ns=(1, 1))
    opened(images, cache=cache)
    (images / "b.png").rename(images / "d.png")
    assert opened(images, cache=cache).names[2] == "more/a.png" and reads == [4, 4, 4, 3, 4, 4, 4]


def test_a_broken_cache_is_made_again(images, tmp_path, reads):
    first = opened(images, cache=tmp_path / "cache")
    want = np.array(first.images)
    del first
    pixels, said = sorted((tmp_path / "cache").iterdir(), key=lambda path: path.suffix, reverse=True)
    whole, text = pixels.read_bytes(), said.read_text()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    breaks = [(pixels, broken) for broken in (b"", whole[:50], whole[: len(whole) // 2], whole[:-1], bytes(flipped))]
    breaks += [
        (said, broken) for broken in (b"", b"{", b"[]", b"\xff\xfe", text.replace('"size": 24', '"size": 25').encode())
    ]
    for path, broken in breaks:
        path.write_bytes(broken)
        np.testing.assert_array_equal(opened(images, cache=tmp_path / "cache").images, want)
        assert pixels.read_bytes() == whole and said.read_text() == text
    pixels.unlink()
    opened(images, cache=tmp_path / "cache")
    said.unlink()
    opened(images, cache=tmp_path / "cache")
    assert reads == [4] * 13


def test_an_open_set_keeps_its_pixels_while_it_is_made_anew(images, tmp_path):
    first = opened(images, cache=tmp_path / "cache")
    want = np.array(first.images)
    next((tmp_path / "cache").glob("*.json")).unlink()
    opened(images, cache=tmp_path / "cache")
    np.testing.assert_array_equal(first.images, want)


def test_two_processes_at_once_make_the_same(images, tmp_path):
    text = (
        "import pathlib, sys; from trainer.data.images import open_images; "
        "print(open_images(sys.argv[1], 24, cache=pathlib.Path(sys.argv[2])).description['sha256'])"
    )
    command = [sys.executable, "-c", text, str(images), str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] == opened(images, cache=tmp_path / "cache").description["sha256"] + "\n"
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_stopped_half_way_leaves_nothing(images, tmp_path):
    source = pack.Source(("a", "b"), None, {"kind": "folder", "size": 4}, [], lambda: stops())

    def stops():
        yield np.zeros((1, 4, 4, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack.packed(source, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_cannot_be_opened_is_one_line(images, tmp_path):
    cache = tmp_path / "cache"
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for data, words in (
        (tmp_path / "nowhere", "no such folder, expected `avatars`, a folder of images, or celeba:DIR"),
        (images / "a.png", "is a file"),
        (tmp_path / "empty", "no images in it, expected files ending in .jpg"),
    ):
        with pytest.raises(InputError, match=words):
            opened(data, cache=cache)
    for options in ({"size": 0}, {"size": 5000}, {"crop": -1}, {"count": -1}, {"count": 5}):
        with pytest.raises(InputError, match="got"):
            opened(images, **({"size": 24, "cache": cache} | options))
    with pytest.raises(InputError, match="workers: got -1"):
        open_images(str(images), 24, cache=cache, workers=-1)
    with pytest.raises(InputError, match="give another --cache"):
        opened(images, cache=tmp_path / "file" / "cache")


def test_links_are_followed_and_circles_end(images, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    save(tmp_path / "elsewhere" / "far.png", picture())
    (images / "linked").symlink_to(tmp_path / "elsewhere")
    (images / "more" / "up").symlink_to(images)
    names = [file.name for file in folder.find(images)]
    assert names == ["a.png", "b.png", "linked/far.png", "more/a.png", "more/deep/c.PNG"]


# --- CelebA ---

NAMES = ("Bald", "No_Beard", "Smiling")


def make_celeba(path, rows, images=None, count=None):
    """CelebA's layout with these rows, name → values, and images by name."""
    text = [str(len(rows) if count is None else count), " ".join(NAMES) + " "]
    text += [f"{name} " + " ".join(f"{value:2d}" for value in values) for name, values in rows.items()]
    path.mkdir(exist_ok=True)
    (path / celeba.TABLE).write_text("\n".join(text) + "\n")
    for k, name in enumerate(rows if images is None else images):
        save(path / celeba.IMAGES / name, picture(109, 89, seed=k))
    return path


ROWS = {"000001.jpg": (1, -1, 1), "000002.jpg": (-1, 1, 1), "000003.jpg": (-1, -1, -1)}


def test_celeba_and_its_table(tmp_path, capsys):
    make_celeba(tmp_path / "celeba", ROWS)
    found = opened(f"celeba:{tmp_path / 'celeba'}", 64, cache=tmp_path / "cache")
    assert found.names == tuple(ROWS) and found.images.shape == (3, 64, 64, 3)
    assert found.attributes is not None and found.attributes.names == NAMES
    np.testing.assert_array_equal(found.attributes.table, [[1, 0, 1], [0, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(found.attributes.column("No_Beard"), [False, True, False])
    with pytest.raises(InputError, match="got 'Beard', expected one of Bald, No_Beard, Smiling"):
        found.attributes.column("Beard")
    assert found.description["kind"] == "celeba" and found.description["attributes"] == list(NAMES)
    assert "no row" not in capsys.readouterr().err
    few = opened(f"celeba:{tmp_path / 'celeba'}", 64, count=2, cache=tmp_path / "cache")
    assert few.attributes is not None and few.attributes.table.shape == (2, 3)


def test_images_and_rows_that_do_not_match(tmp_path, capsys):
    make_celeba(tmp_path / "celeba", ROWS, images=("000002.jpg", "000003.jpg", "000009.jpg"))
    found = opened(f"celeba:{tmp_path / 'celeba'}", 64, cache=tmp_path / "cache")
    assert found.names == ("000002.jpg", "000003.jpg")
    assert found.attributes is not None and found.attributes.table.tolist() == [[0, 1, 1], [0, 0, 0]]
    assert "2 images are used; 1 have no row in list_attr_celeba.txt, 1 rows have no image" in capsys.readouterr().err
    make_celeba(tmp_path / "other", ROWS, images=("a.jpg",))
    with pytest.raises(InputError, match=r"none of the 1 images in img_align_celeba is in .*whose first is 000001.jpg"):
        opened(f"celeba:{tmp_path / 'other'}", 64, cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("3\n", "4\n", "got 3 rows, line 1 says 4"),
        ("3\n", "many\n", "line 1: got 'many', expected how many rows"),
        ("Bald No_Beard", "Bald Bald", "line 2: got 3 attributes"),
        ("000002.jpg -1", "000002.jpg 0", "line 4: got '0', expected 1 or -1"),
        ("000002.jpg -1", "000002.jpg", "line 4: got 2 values, expected 3"),
        ("000003.jpg", "000002.jpg", "line 5: got 000002.jpg a second time"),
        ("000001.jpg", "000001.jpg \udcff", "cannot be read"),
    ],
)
def test_a_broken_table_names_its_line(tmp_path, old, new, words):
    make_celeba(tmp_path, ROWS)
    table = tmp_path / celeba.TABLE
    table.write_text(table.read_text().replace(old, new, 1), errors="surrogateescape")
    with pytest.raises(InputError, match=words):
        celeba.read(tmp_path)


def test_celeba_that_is_not_there(tmp_path):
    make_celeba(tmp_path, ROWS)
    (tmp_path / celeba.TABLE).unlink()
    with pytest.raises(InputError, match=r"no list_attr_celeba.txt in it, expected CelebA as it ships"):
        celeba.read(tmp_path)
    with pytest.raises(InputError, match="no img_align_celeba/ in it"):
        celeba.read(tmp_path / "nowhere")


def test_attributes_are_plain():
    attributes = Attributes(("One",), np.array([[1], [0]], np.uint8))
    assert attributes.column("One").tolist() == [True, False]
    with pytest.raises(dataclasses.FrozenInstanceError):
        attributes.names = ()  # type: ignore[misc]


@pytest.mark.skipif(not (REAL / "celeba").is_dir(), reason="AWASE_REAL_DATA names no folder with celeba")
def test_real_celeba(tmp_path):
    found = open_images(f"celeba:{REAL / 'celeba'}", 64, count=300, cache=tmp_path)
    assert found.attributes is not None and found.attributes.table.shape == (300, 40)
    assert found.images.shape == (300, 64, 64, 3) and 60 < found.images.mean() < 190
    whole = celeba.match(REAL / "celeba")
    assert not whole.unlisted and not whole.missing
    assert whole.attributes.column("Mustache").sum() == 2155 and whole.attributes.column("Bald").sum() == 882
