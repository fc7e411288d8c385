import json

import pytest

from runtime.errors import InputError
from runtime.robot.camera import Camera


def test_words_give_a_camera():
    words = "position=.1,0,.4 target=1,0,0 up=0,1,0 fov=50 near=.1 far=9 size=160x120 link=head".split()
    assert Camera.parse(words) == Camera((0.1, 0, 0.4), (1, 0, 0), (0, 1, 0), 50, 0.1, 9, 160, 120, "head")
    assert Camera.parse(["size=64"]) == Camera(width=64, height=64)
    assert Camera.parse([]) == Camera()


def test_json_round_trip():
    camera = Camera(position=(1, 2, 3), link="head", width=100)
    assert Camera.from_json(json.loads(json.dumps(camera.to_json()))) == camera
    with pytest.raises(InputError, match="cannot read"):
        Camera.from_json({"zoom": 3})


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("position=1,2", r"camera position: got \(1.0, 2.0\), expected three finite numbers"),
        ("position=1,2,nan", "three finite numbers"),
        ("position=a,b,c", r"cannot read 'position=a,b,c'; write for instance --camera position="),
        ("fov", "cannot read 'fov'"),
        ("fov=180", "camera fov: got 180.0, expected degrees between 0 and 180"),
        ("near=4", "expected 0 < near < far"),
        ("size=4", "camera width: got 4, expected 8 to 2048 pixels"),
        ("size=80x", "cannot read 'size=80x'"),
        ("size=80x9999", "camera height"),
        ("zoom=2", "got 'zoom=2', expected one of position, target"),
        ("target=.06,0,.36", "give a point to look at"),
        ("up=.16,0,-.36", "along the line of sight"),
    ],
)
def test_words_that_make_no_camera(word, message):
    with pytest.raises(InputError, match=message):
        Camera.parse([word])
