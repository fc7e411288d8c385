import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("python_avatars")

from runtime.errors import InputError
from trainer.data import avatar_art, avatars
from trainer.data.avatars import ATTRIBUTES, HAIR_COLOURS, attributes, avatar, draw, force, render, table
from trainer.data.images import open_images

ON_TOP = {"Bald", "Wearing_Hat", "Long_Hair", *HAIR_COLOURS}
# What else may change where an attribute is forced: what cannot be beside it, or what taking it away shows.
MAY_CHANGE = {
    **dict.fromkeys(ON_TOP, ON_TOP),
    "No_Beard": {"Mustache"},
    "Mustache": {"No_Beard"},
    "Eyeglasses": {"Sunglasses", "Eyes_Closed"},
    "Sunglasses": {"Eyeglasses", "Eyes_Closed"},
    "Eyes_Closed": {"Sunglasses"},
}


def rasterisers():
    works = []
    for name, module in (("skia", "skia"), ("resvg", "resvg_py")):
        try:
            __import__(module)
            works.append(name)
        except ImportError:
            continue
    return works


def test_a_function_of_seed_and_index():
    one, labels = avatar(3, 5)
    assert one.shape == (128, 128, 3) and one.dtype == np.uint8 and list(labels) == list(ATTRIBUTES)
    again, labels_again = avatar(3, 5)
    np.testing.assert_array_equal(one, again)
    assert labels == labels_again
    others = [avatar(3, 6)[0], avatar(4, 5)[0], avatar(2**64 - 1, 2**64 - 1)[0]]
    assert all((one != other).any() for other in others)
    for seed, index in ((-1, 0), (0, -1), (2**64, 0)):
        with pytest.raises(InputError, match="expected 0 to"):
            avatar(seed, index)


def test_attributes_are_drawn_often_enough_and_never_contradict():
    labels = dict(zip(ATTRIBUTES, table(0, 3000).T.astype(bool), strict=True))
    for name, values in labels.items():
        assert 0.04 < values.mean() < 0.75, name
    colours = sum(labels[name].astype(int) for name in HAIR_COLOURS)
    np.testing.assert_array_equal(colours, 1 - labels["Bald"] - labels["Wearing_Hat"].astype(int))
    assert not (labels["Long_Hair"] & (colours == 0)).any()
    assert not (labels["Mustache"] & labels["No_Beard"]).any()
    assert not (labels["Sunglasses"] & ~labels["Eyeglasses"]).any()
    assert not (labels["Eyes_Closed"] & labels["Sunglasses"]).any()
    assert (labels["Bald"] & ~labels["No_Beard"]).any()  # bald and bearded, which few are


@pytest.mark.parametrize("name", ATTRIBUTES)
@pytest.mark.parametrize("value", [0, 1])
def test_forcing_one_attribute_leaves_the_rest(name, value):
    for index in range(150):
        face = draw(7, index)
        before, forced = attributes(face), force(face, {name: value})
        after = attributes(forced)
        assert after[name] == value and forced.art == face.art
        changed = {other for other in ATTRIBUTES if before[other] != after[other]}
        assert changed <= MAY_CHANGE.get(name, set()) | {name}
        if before[name] == value:
            assert not changed


def test_forcing_leaves_the_pixels_elsewhere():
    """Glasses change the eyes' region, and nothing of what is below the nose."""
    index = next(i for i in range(100) if not attributes(draw(1, i))["Eyeglasses"] and abs(draw(1, i).art.turn) < 2)
    plain, glasses = avatar(1, index)[0], avatar(1, index, Eyeglasses=1)[0]
    assert (plain[40:75] != glasses[40:75]).any()
    np.testing.assert_array_equal(plain[90:], glasses[90:])
    np.testing.assert_array_equal(avatar(1, index, Eyeglasses=0)[0], plain)


def test_several_forced_at_once_or_one_clear_line():
    wanted = {"Bald": 1, "No_Beard": 0, "Mustache": 0, "Eyeglasses": 1, "Sunglasses": 0, "Smiling": 1}
    for index in range(100):
        got = attributes(force(draw(0, index), wanted))
        assert {name: got[name] for name in wanted} == wanted
    hatless = attributes(force(draw(0, 3), {"Wearing_Hat": 0, "Bald": 0, "Black_Hair": 0, "Brown_Hair": 0}))
    assert sum(hatless[name] for name in ("Blond_Hair", "Red_Hair", "Gray_Hair")) == 1
    refused = [
        {"Bald": 1, "Wearing_Hat": 1},
        {"Bald": 1, "Black_Hair": 1},
        {"Black_Hair": 1, "Red_Hair": 1},
        {"Mustache": 1, "No_Beard": 1},
        {"Sunglasses": 1, "Eyeglasses": 0},
        {"Sunglasses": 1, "Eyes_Closed": 1},
        {"Bald": 0, "Wearing_Hat": 0, **dict.fromkeys(HAIR_COLOURS, 0)},
    ]
    for wanted, index in itertools.product(refused, range(20)):
        with pytest.raises(InputError, match="cannot be together"):
            force(draw(0, index), wanted)
    with pytest.raises(InputError, match=r"got attribute 'Beard', expected one of Bald, No_Beard"):
        avatar(0, 0, Beard=1)
    with pytest.raises(InputError, match="Bald: got 2, expected 0 or 1"):
        avatar(0, 0, Bald=2)


def test_every_part_is_there_and_has_a_place_for_beard_and_glasses():
    pa = avatar_art._library()
    kinds = {
        **dict.fromkeys(("long", "short"), pa.HairType),
        "hat": pa.HatType,
        **dict.fromkeys(("beard", "moustache"), pa.FacialHairType),
        **dict.fromkeys(("clear", "dark"), pa.AccessoryType),
        **dict.fromkeys(("smile open", "smile shut", "open", "shut"), pa.MouthType),
        **dict.fromkeys(("eyes open", "eyes closed"), pa.EyeType),
        **{"brows": pa.EyebrowType, "nose": pa.NoseType, "clothes": pa.ClothingType},
    }
    assert kinds.keys() | {"skin"} == avatar_art.CHOICES.keys()
    for place, kind in kinds.items():
        assert set(avatar_art.CHOICES[place]) <= set(kind.__members__)
    tops = [pa.HairType[name] for place in ("long", "short") for name in avatar_art.CHOICES[place]]
    for top in [*tops, pa.HairType.NONE, *(pa.HatType[name] for name in avatar_art.CHOICES["hat"])]:
        bare = pa.Avatar(top=top, clothing=pa.ClothingType.HOODIE)
        drawn = len(bare.render())
        bare.facial_hair = pa.FacialHairType.BEARD_LIGHT
        bearded = len(bare.render())
        bare.accessory = pa.AccessoryType.ROUND
        assert drawn < bearded < len(bare.render()), top
        colour = {"hair_color": "#123456"} if isinstance(top, pa.HairType) else {"hat_color": "#123456"}
        if top is not pa.HairType.NONE:
            assert "#123456" in pa.Avatar(top=top, clothing=pa.ClothingType.HOODIE, **colour).render(), top


def test_parts_read_once_draw_what_the_library_draws():
    text = (
        "import python_avatars as pa; print(pa.Avatar(top=pa.HairType.BOB, clothing=pa.ClothingType.HOODIE, "
        "facial_hair=pa.FacialHairType.BEARD_LIGHT, accessory=pa.AccessoryType.ROUND).render(), end='')"
    )
    plain = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, text=True).stdout
    pa = avatar_art._library()
    kinds = {"clothing": pa.ClothingType.HOODIE, "accessory": pa.AccessoryType.ROUND}
    for _ in range(2):  # the second comes from what the first has read
        made = pa.Avatar(top=pa.HairType.BOB, facial_hair=pa.FacialHairType.BEARD_LIGHT, **kinds).render()
        assert made == plain


@pytest.mark.skipif(len(rasterisers()) < 2, reason="skia-python and resvg_py are not both usable here")
def test_both_rasterisers_draw_the_same_faces():
    for index in range(6):
        (one, labels), (other, same) = (avatar(0, index, rasteriser=name) for name in ("skia", "resvg"))
        assert labels == same
        far = np.abs(one.astype(int) - other.astype(int))
        assert far.mean() < 5 and (far.max(axis=2) < 40).mean() > 0.9
        # They are this face: another one is much further away.
        assert far.mean() < 0.2 * np.abs(one.astype(int) - avatar(0, index + 1)[0].astype(int)).mean()


def test_resvg_alone_is_enough(monkeypatch):
    if "resvg" not in rasterisers():
        pytest.skip("resvg_py is not installed")

    def absent(drawing, size):
        raise ImportError("libGL.so.1: cannot open shared object file")

    monkeypatch.setattr(avatar_art, "_RASTERISERS", {"skia": absent, "resvg": avatar_art._resvg})
    assert avatar_art.default_rasteriser.__wrapped__() == "resvg"
    monkeypatch.setattr(avatar_art, "_RASTERISERS", {"skia": absent, "resvg": absent})
    with pytest.raises(InputError, match="pip install resvg_py"):
        avatar_art.default_rasteriser.__wrapped__()
    with pytest.raises(InputError, match="got 'cairo', expected one of skia, resvg"):
        avatar(0, 0, rasteriser="cairo")


def test_drawn_at_128_and_averaged_or_larger_at_their_own_size():
    import cv2

    full, small, large = (avatar(0, 4, size=size)[0] for size in (128, 64, 192))
    np.testing.assert_array_equal(small, cv2.resize(full, (64, 64), interpolation=cv2.INTER_AREA))
    assert large.shape == (192, 192, 3)
    again = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(again.astype(int) - full.astype(int)).mean() < 4


def test_chunks_are_the_same_in_processes(capsys, monkeypatch):
    alone = np.concatenate(list(render(2, 10, 32, first=5, workers=1)))
    monkeypatch.setattr(avatars, "_CHUNK", 4)
    shared = np.concatenate(list(render(2, 10, 32, first=5, workers=2)))
    np.testing.assert_array_equal(alone, shared)
    np.testing.assert_array_equal(alone[3], avatar(2, 8, size=32)[0])
    np.testing.assert_array_equal(table(2, 10, first=5)[3], list(avatar(2, 8)[1].values()))
    talk = capsys.readouterr()
    assert talk.out == "" and "drawing avatars" in talk.err


def test_opened_as_a_set_and_kept(tmp_path, monkeypatch):
    drawn = []
    draw_all = avatars.render
    monkeypatch.setattr(avatars, "render", lambda *given, **more: drawn.append(given) or draw_all(*given, **more))
    opened = open_images("avatars", 32, count=12, cache=tmp_path, workers=1)
    assert len(opened) == 12 and opened.names[3] == "avatar 3" and opened.images.shape == (12, 32, 32, 3)
    assert opened.attributes is not None and opened.attributes.names == ATTRIBUTES
    np.testing.assert_array_equal(opened.images[3], avatar(0, 3, size=32)[0])
    np.testing.assert_array_equal(opened.attributes.table, table(0, 12))
    said = opened.description
    assert (said["kind"], said["count"], said["seed"], said["first"], said["size"]) == ("avatars", 12, 0, 0, 32)
    assert said["rasteriser"] in ("skia", "resvg") and "python_avatars" in said["libraries"]
    assert re.fullmatch("[0-9a-f]{64}", said["sha256"])
    open_images("avatars", 32, count=12, cache=tmp_path, workers=1)
    assert len(drawn) == 1
    other = open_images("avatars", 32, count=12, cache=tmp_path, workers=1, seed=1)
    open_images("avatars", 32, count=13, cache=tmp_path, workers=1)
    open_images("avatars", 16, count=12, cache=tmp_path, workers=1)
    monkeypatch.setattr(avatar_art, "versions", lambda rasteriser: {"python_avatars": "9", rasteriser: "9"})
    open_images("avatars", 32, count=12, cache=tmp_path, workers=1)
    assert len(drawn) == 5 and (other.images[3] != opened.images[3]).any()
    with pytest.raises(InputError, match="crop: got 100 with avatars"):
        open_images("avatars", 32, crop=100, cache=tmp_path)
