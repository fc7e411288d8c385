import json

import numpy as np
import pytest

from runtime.errors import InputError
from trainer.data.recording import Modality, Recording

Image = pytest.importorskip("PIL.Image")

NAMES = ("Shoulder", "Elbow")
ROBOT = {"joints": ["Elbow", "Wrist", "Shoulder"], "limits": [[-2.0, 2.0], [-1.0, 1.0], [-0.5, 1.5]]}


def angles(count=5):
    return np.linspace(-0.4, 1.4, 2 * count).reshape(count, 2).astype(np.float32)


def pixels(count=5, height=8, width=10):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


def table(rows, header="Shoulder,Elbow"):
    return "\n".join([header, *(",".join(str(cell) for cell in row) for row in rows)]) + "\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for row, frame in enumerate(pixels()):
        Image.fromarray(frame).save(tmp_path / "images" / f"{row:06d}.png")
    (tmp_path / "joints.csv").write_text(table(angles()))
    return tmp_path


def check_refused(path, message, robot=None):
    with pytest.raises(InputError, match=message) as caught:
        Recording.read(path, robot)
    assert "\n" not in str(caught.value)


def test_a_folder_gives_images_and_joints(folder):
    recording = Recording.read(folder)
    image, joints = recording.modalities
    assert image == Modality("image", "image", (3, 8, 10))
    assert (joints.name, joints.kind, joints.shape, joints.names, joints.unit) == (
        "joints",
        "vector",
        (2,),
        NAMES,
        "rad",
    )
    assert len(recording) == 5 and recording.modality("joints") is joints
    np.testing.assert_array_equal(recording.arrays["image"], pixels())
    np.testing.assert_array_equal(recording.arrays["joints"], angles())
    with pytest.raises(InputError, match="no modality 'depth'; the data has image, joints"):
        recording.modality("depth")


def test_limits_come_from_the_file_then_the_robot_then_the_data(folder):
    joints = Recording.read(folder).modality("joints")
    assert joints.limits_from == "data" and joints.limits == tuple(
        zip(angles().min(axis=0).tolist(), angles().max(axis=0).tolist(), strict=True)
    )
    joints = Recording.read(folder, ROBOT).modality("joints")
    assert joints.limits_from == "robot" and joints.limits == ((-0.5, 1.5), (-2.0, 2.0))
    (folder / "joints.limits.csv").write_text("Elbow,Shoulder\n-3,-1\n3,2\n")
    joints = Recording.read(folder, ROBOT).modality("joints")
    assert joints.limits_from == "file" and joints.limits == ((-1.0, 2.0), (-3.0, 3.0))


def test_more_modalities(folder):
    (folder / "left_eye").mkdir()
    for row, frame in enumerate(pixels(height=9, width=9)):
        Image.fromarray(frame).save(folder / "left_eye" / f"{row}.png")
    (folder / "fingers.csv").write_text(table([[row] for row in range(5)], "Thumb"))
    (folder / "notes").mkdir()
    recording = Recording.read(folder)
    assert [m.name for m in recording.modalities] == ["image", "left_eye", "fingers", "joints"]
    assert recording.modality("left_eye").shape == (3, 9, 9)


def test_images_are_in_the_order_of_the_numbers_in_their_names(folder):
    frames = pixels(12)
    for file in (folder / "images").iterdir():
        file.unlink()
    for row, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / "images" / f"take{row // 6}_{7 + row}.png")
    (folder / "joints.csv").write_text(table(angles(12)))
    np.testing.assert_array_equal(Recording.read(folder).arrays["image"], frames)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cam.left", "expected small letters, digits and _, a letter first; rename it"),
        ("Camera", "expected small letters"),
        ("2nd", "expected small letters"),
        ("_eye", "expected small letters"),
        ("left-eye", "expected small letters"),
        ("type", "a word with a meaning of its own in Python, PyTorch or here; rename it, for instance to type_1"),
        ("training", "a word with a meaning"),
        ("forward", "a word with a meaning"),
        ("class", "a word with a meaning"),
        ("z", "a word with a meaning"),
        ("robot", "a word with a meaning"),
    ],
)
def test_names_that_cannot_be_used(folder, name, words):
    (folder / "joints.csv").rename(folder / f"{name}.csv")
    check_refused(folder, rf"{name}.csv: cannot be a modality called '{name}', {words}")
    (folder / f"{name}.csv").rename(folder / "joints.csv")
    (folder / "images").rename(folder / name)
    check_refused(folder, rf"{name}: cannot be a modality called '{name}', {words}")
    if name != "robot":
        np.savez(folder / "data.npz", **{name: pixels(), "joints": angles()})
        check_refused(folder / "data.npz", rf"data.npz: {name}: cannot be a modality called '{name}', {words}")


@pytest.mark.parametrize("size", [(1, 1), (7, 64), (64, 7)])
def test_images_too_small(folder, size):
    for row in range(5):
        Image.new("RGB", size).save(folder / "images" / f"{row:06d}.png")
    check_refused(folder, rf"images: got images of {size[0]}x{size[1]} pixels, expected at least 8 on each side")
    np.savez(folder / "data.npz", images=pixels(5, *size))
    check_refused(folder / "data.npz", rf"data.npz: images: got images of {size[1]}x{size[0]} pixels")


@pytest.mark.parametrize("robot", [None, ROBOT])
def test_what_is_saved_is_read_back_equal(folder, robot):
    recording = Recording.read(folder, robot)
    recording.save(folder / "new" / "data.npz")
    again = Recording.read(folder / "new" / "data.npz")
    assert again.modalities == recording.modalities and again.robot == robot
    for name, array in recording.arrays.items():
        np.testing.assert_array_equal(again.arrays[name], array)
    assert [entry.name for entry in (folder / "new").iterdir()] == ["data.npz"]


def test_an_npz_as_the_runtime_generates_it(tmp_path):
    from runtime.__main__ import main

    assert main(["generate", "mgan-robot", "--count", "6", "--first", "3", "--npz", str(tmp_path / "data.npz")]) == 0
    recording = Recording.read(tmp_path / "data.npz")
    assert len(recording) == 6 and [m.name for m in recording.modalities] == ["image", "joints"]
    assert recording.modality("joints").names[0] == "LShoulderPitch" and recording.modality("joints").unit == "rad"


def test_an_npz_of_plain_arrays(tmp_path):
    np.savez(tmp_path / "data.npz", images=pixels(), joints=angles().astype(np.float64), robot=json.dumps(ROBOT))
    recording = Recording.read(tmp_path / "data.npz")
    joints = recording.modality("joints")
    assert joints.names == ("joints0", "joints1") and joints.limits_from == "data" and joints.unit == "rad"
    assert recording.arrays["joints"].dtype == np.float32 and recording.robot == ROBOT
    limits = [[-1, 2], [-1, 2]]
    np.savez(tmp_path / "data.npz", images=pixels(), joints=angles(), joints_names=NAMES, joints_limits=limits)
    joints = Recording.read(tmp_path / "data.npz").modality("joints")
    assert joints.names == NAMES and joints.limits == ((-1.0, 2.0), (-1.0, 2.0)) and joints.limits_from == "file"


def test_rounding_at_a_limit_is_clipped(folder):
    (folder / "joints.limits.csv").write_text("Shoulder,Elbow\n-0.39999,-1\n1.19999,1.39999\n")
    values = Recording.read(folder).arrays["joints"]
    assert values[0, 0] == np.float32(-0.39999) and values[4, 1] == np.float32(1.39999)


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([[0, 1], [0, "nan"], [1, 0]], "Shoulder,Elbow", r"joints.csv line 3, Elbow: got nan, expected a finite"),
        ([[0, 1], [0, 1], ["inf", 0]], "Shoulder,Elbow", r"joints.csv line 4, Shoulder: got inf"),
        ([[0, 1], [0, "1.0.0"]], "Shoulder,Elbow", r"joints.csv line 3, Elbow: got '1.0.0', expected a number"),
        ([[0, 1], [0, ""]], "Shoulder,Elbow", r"line 3, Elbow: got '', expected a number"),
        ([[0, 1], [0, 1, 2]], "Shoulder,Elbow", r"joints.csv line 3: got 3 cells, expected 2"),
        ([], "Elbow,Elbow", r"joints.csv line 1: got column 'Elbow' twice"),
        ([], "Elbow,", r"joints.csv line 1: got an empty column name"),
        ([], "0.1,0.2", r"joints.csv line 1: got no header"),
    ],
)
def test_joints_that_cannot_be_used(folder, rows, header, message):
    rows = rows + [[0.5, 0.5]] * (5 - len(rows))
    (folder / "joints.csv").write_text(table(rows, header))
    check_refused(folder, message)


def test_an_angle_outside_its_limits_is_named(folder):
    (folder / "joints.csv").write_text(table([[0, 1], [0.5, 0.5], [0, 2.5], [0, 0], [1, 1]]))
    check_refused(folder, r"joints.csv line 4, Elbow: got 2.5 rad, expected -2 to 2 rad \(limits of the robot\)", ROBOT)
    (folder / "joints.limits.csv").write_text("Shoulder,Elbow\n0,0\n0.4,3\n")
    check_refused(
        folder, r"joints.csv line 3, Shoulder: got 0.5 rad, expected 0 to 0.4 rad \(limits of the file\)", ROBOT
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Shoulder,Elbow\n1,0\n0,1\n", r"joints.limits.csv: Shoulder: got limits 1 to 0, expected lower < upper"),
        ("Shoulder,Elbow\n0,nan\n1,1\n", r"Elbow: got limits nan to 1"),
        ("Shoulder,Wrist\n0,0\n1,1\n", r"got columns Shoulder, Wrist and 2 rows, expected Shoulder, Elbow"),
        ("Shoulder,Elbow\n0,0\n", r"and 1 rows, expected Shoulder, Elbow and two rows, lower and upper"),
    ],
)
def test_limits_that_cannot_be_used(folder, text, message):
    (folder / "joints.limits.csv").write_text(text)
    check_refused(folder, message)


def test_limits_without_their_file_and_a_joint_that_never_moves(folder):
    (folder / "joints.csv").write_text(table([[0, row] for row in range(5)]))
    check_refused(folder, r"joints.csv: Shoulder does not change")
    (folder / "joints.csv").rename(folder / "angles.csv")
    (folder / "joints.limits.csv").write_text("Shoulder,Elbow\n0,0\n1,1\n")
    check_refused(folder, r"joints.limits.csv: limits of a file that is not there")


def test_images_that_cannot_be_used(folder):
    third = folder / "images" / "000002.png"
    good = third.read_bytes()
    for size in range(len(good)):
        third.write_bytes(good[:size])
        check_refused(folder, r"000002.png: broken image")
    for at in range(len(good)):
        third.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        check_refused(folder, r"000002.png: broken image")
    third.write_text("not an image")
    check_refused(folder, r"000002.png: broken image: not a PNG file")
    Image.fromarray(pixels(1, 8, 9)[0]).save(third)
    check_refused(folder, r"000002.png: got 9x8 pixels, expected 10x8 like 000000.png")
    for mode, words in {
        "L": "grey of 8",
        "RGBA": "RGB with alpha of 8",
        "P": "palette of 1",
        "I;16": "grey of 16",
    }.items():
        Image.new(mode, (10, 8)).save(third)
        check_refused(folder, rf"000002.png: got {words} bits, expected RGB of 8 bits")


def test_an_image_too_few_or_too_many(folder):
    (folder / "images" / "000004.png").unlink()
    check_refused(folder, r"images has 4 samples and .*joints.csv has 5, expected as many of both")


def test_places_without_data(tmp_path):
    check_refused(tmp_path, r"no data in it, expected images/\*.png and joints.csv")
    check_refused(tmp_path / "none", r"none: no such file or folder")
    (tmp_path / "data.txt").write_text("")
    check_refused(tmp_path / "data.txt", r"got a .txt file, expected a folder or an .npz file")
    (tmp_path / "joints.csv").write_text("")
    check_refused(tmp_path, r"joints.csv line 1: got no header")
    (tmp_path / "joints.csv").write_text("Shoulder\n")
    check_refused(tmp_path, r"got 0 samples, expected at least 2")
    (tmp_path / "joints.csv").write_text("Shoulder\n0.5\n")
    check_refused(tmp_path, r"got 1 samples, expected at least 2")
    (tmp_path / "joints.csv").write_bytes(b"Shoulder\n\xff\n")
    check_refused(tmp_path, r"joints.csv: cannot be read")
    (tmp_path / "joints.csv").unlink()
    (tmp_path / "image").mkdir()
    (tmp_path / "images").mkdir()
    for name in ("image", "images"):
        Image.fromarray(pixels(1)[0]).save(tmp_path / name / "0.png")
    check_refused(tmp_path, r"two modalities are called 'image'; rename one")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"joints": np.zeros((5, 2), int)}, r"data.npz: joints: got int64 \[5, 2\], expected uint8 \[N, H, W, 3\] or"),
        ({"images": np.zeros((5, 6, 8, 1), np.uint8)}, r"images: got uint8 \[5, 6, 8, 1\]"),
        ({"images": np.zeros((5, 6, 8, 3), np.float32)}, r"images: got float32"),
        ({"joints": np.array([[0, 1], [1, np.nan]])}, r"data.npz: joints row 1, joints1: got nan"),
        ({"joints": np.array([[0, 1], [1e300, 0]])}, r"joints row 1, joints0: got inf"),
        ({"joints": angles(), "joints_limits": [[0, 1]]}, r"joints_limits: got \[1, 2\], expected \[2, 2\]"),
        (
            {"joints": angles(), "joints_limits": [[0, 1], [0, 1]]},
            r"joints row 0, joints0: got -0.4 rad, expected 0 to",
        ),
        ({"joints": angles(), "joints_names": ["a", "a"]}, r"joints_names: got a, a, expected 2 different names"),
        ({"joints": angles(), "images": pixels(4)}, r"joints has 5 samples and .*images has 4, expected"),
        ({"joints": angles(), "robot": "{"}, r"robot: got unreadable text"),
        ({"joints": angles(), "robot": "3"}, r"robot: got unreadable text"),
        ({"joints": np.array([{}], object)}, r"data.npz: cannot be read"),
        ({}, r"no data in it"),
    ],
)
def test_an_npz_that_cannot_be_used(tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    check_refused(tmp_path / "data.npz", message)


def test_a_truncated_npz_is_named(folder):
    Recording.read(folder).save(folder / "data.npz")
    whole = (folder / "data.npz").read_bytes()
    for size in range(0, len(whole), 97):
        (folder / "data.npz").write_bytes(whole[:size])
        check_refused(folder / "data.npz", r"data.npz: cannot be read, broken or cut short")
    np.save(folder / "array.npy", angles())
    (folder / "array.npy").rename(folder / "data.npz")
    check_refused(folder / "data.npz", r"data.npz: ")


def test_saving_below_a_file(folder):
    with pytest.raises(InputError, match="joints.csv/data.npz: cannot be written: File exists"):
        Recording.read(folder).save(folder / "joints.csv" / "data.npz")


def test_saving_leaves_the_old_file_when_it_fails(folder, monkeypatch):
    recording = Recording.read(folder)
    recording.save(folder / "data.npz")
    before = (folder / "data.npz").read_bytes()

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match="data.npz: cannot be written: No space left on device"):
        recording.save(folder / "data.npz")
    assert (folder / "data.npz").read_bytes() == before and not list(folder.glob(".*.part"))
