import json

import numpy as np
import pytest

pytest.importorskip("pybullet")

from runtime.errors import InputError
from runtime.metrics.ssim_gap import equivalent_joint_error, evaluate, joint_error_curve, ssim_gap
from runtime.robot import Camera, Robot


@pytest.fixture(scope="module")
def robot():
    with Robot() as robot:
        yield robot


@pytest.fixture(scope="module")
def frames(robot):
    return robot.render(robot.sample(100, 0))


@pytest.fixture(scope="module")
def curve(robot):
    done = []
    curve = joint_error_curve(robot, errors=(0.1, 0.3), progress=done.append)
    assert done[-1] == 300 and done == sorted(done)
    return curve


def test_true_renders_reach_the_known_gap(frames, curve):
    best = ssim_gap(frames, frames)
    assert best["matched"] == pytest.approx(1) and best["matched_standard_error"] == pytest.approx(0)
    assert 0.40 < best["gap"] < 0.44
    assert curve[0] == {"error": 0, "gap": best["gap"]}
    assert json.loads(json.dumps(best)) == best


def test_the_figures_are_means_over_their_pairs(frames):
    metrics = pytest.importorskip("skimage.metrics")
    replays = np.roll(frames, 1, axis=0)
    figures = ssim_gap(frames, replays, matched=5, random=3)
    pairs = zip(frames[:5], replays[:5], strict=True)
    expected = [metrics.structural_similarity(a, b, channel_axis=2) for a, b in pairs]
    assert figures["matched"] == pytest.approx(np.mean(expected))
    assert figures["matched_standard_error"] == pytest.approx(np.std(expected, ddof=1) / np.sqrt(5))
    assert figures["gap"] == pytest.approx(figures["matched"] - figures["random"])
    assert (figures["matched_count"], figures["random_count"]) == (5, 3)
    assert figures["direction"] == "higher is better" and "uniform 7x7" in figures["ssim"]


def test_unrelated_replays_have_no_gap_and_the_error_says_so(robot, frames):
    figures = ssim_gap(frames, robot.render(robot.sample(100, 1)))
    assert abs(figures["gap"]) < 3 * figures["gap_standard_error"] < 0.1


def test_the_seed_draws_the_random_pairs(frames):
    first, again, other = (ssim_gap(frames, frames, seed=seed) for seed in (0, 0, 1))
    assert first == again and first["random"] != other["random"]
    # Random pairs are never an image with its own replay, which would score 1.
    two = ssim_gap(frames, frames, matched=2, random=50)
    assert two["random"] == pytest.approx(ssim_gap(frames, frames, matched=2, random=1)["random"])


def test_the_curve_falls_and_gives_the_equivalent_error(curve):
    gaps = [point["gap"] for point in curve]
    assert 0.40 < gaps[0] < 0.44 and 0.15 < gaps[1] < 0.25 and 0.04 < gaps[2] < 0.11
    assert equivalent_joint_error(gaps[1], curve) == pytest.approx(0.1)
    assert equivalent_joint_error((gaps[1] + gaps[2]) / 2, curve) == pytest.approx(0.2)
    assert equivalent_joint_error(0.9, curve) == 0
    assert equivalent_joint_error(-0.1, curve) is None


def test_evaluate_puts_it_together(robot, frames, curve):
    joints = robot.sample(100, 0)
    best = ssim_gap(frames, frames)["gap"]
    figures = evaluate(robot, frames, joints, curve=curve)
    assert figures["ratio"] == pytest.approx(1) and figures["equivalent_joint_error"] == pytest.approx(0, abs=1e-9)
    assert figures["reachable"] == best and figures["renderer"]["supersample"] == 2
    assert figures["gap"] == best
    json.dumps(figures)
    wrong = np.clip(joints + 0.15, *robot.limits.T)
    assert 0.2 < evaluate(robot, frames, wrong, curve=curve)["ratio"] < 0.9


def test_evaluate_measures_its_yardstick_when_it_has_none():
    with Robot(camera=Camera(width=16, height=16), supersample=1) as small:
        joints = small.sample(20, 3)
        figures = evaluate(small, small.render(joints), joints, matched=20, random=40)
    assert figures["reachable"] > 0 and len(figures["joint_error_curve"]) == 8


def test_what_cannot_be_scored(robot, frames):
    joints = robot.sample(100, 0)
    for call, message in [
        (lambda: ssim_gap(frames[:64], frames[:64]), r"got images \[64, 80, 80, 3\].* at least 100 frames"),
        (lambda: ssim_gap(frames, frames[:, :40]), "expected both alike"),
        (lambda: ssim_gap(frames, frames, matched=1), "expected at least 2 and 1"),
        (lambda: ssim_gap(frames / 255, frames / 255), "data_range"),
        (lambda: ssim_gap(frames, frames, seed=-1), "seed"),
        (lambda: evaluate(robot, frames[:, :40], joints), r"camera size \[80, 80, 3\]"),
        (lambda: evaluate(robot, frames[:50], joints), "expected as many of both"),
        (lambda: evaluate(robot, frames, joints + 9), "row 0, LShoulderPitch"),
    ]:
        with pytest.raises(InputError, match=message):
            call()
