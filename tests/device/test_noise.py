"""Noise on what is sent: as much as was asked for, the same for a window sent again, another for each window."""

from __future__ import annotations

import numpy as np

from device_agent.noise import SECRET, new_secret, noisy, with_noise

SECRET_KEY = bytes(range(SECRET))


def test_noise_is_a_part_of_each_channels_deviation() -> None:
    """Channels of different scale get noise of different scale."""
    values = (np.random.default_rng(0).standard_normal((4000, 2)) * [1, 100]).astype(np.float32)
    added = noisy({"audio": values}, 0.3, SECRET_KEY, 1)["audio"] - values
    np.testing.assert_allclose(added.std(axis=0), 0.3 * values.std(axis=0), rtol=0.1)


def test_a_window_that_is_sent_again_has_the_same_noise() -> None:
    """Else its edge could average it away; other windows, modalities and processes have their own."""
    values = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    both = {"audio": values, "vision": values}
    first, again = (noisy(both, 1.0, SECRET_KEY, 7) for _ in range(2))
    np.testing.assert_array_equal(first["audio"], again["audio"])
    others = [first["vision"], noisy(both, 1.0, SECRET_KEY, 8)["audio"], noisy(both, 1.0, new_secret(), 7)["audio"]]
    assert all(not np.allclose(first["audio"], other) for other in others)


def test_no_noise_leaves_everything_as_it_is() -> None:
    """The default."""
    values = np.ones((2, 2), np.float32)
    assert noisy({"text": values}, 0.0, SECRET_KEY, 1)["text"] is values


def test_what_does_not_move_is_hidden_too() -> None:
    """A single step, and a channel that is constant, get the deviation of all values; nothing gets none."""
    random = np.random.default_rng(0)
    one = np.array([[1.0, 2.0, 5.0]], np.float32)
    assert (with_noise(one, 1.0, random) != one).all()
    still = np.array([[0.0, 1.0], [0.0, 3.0]], np.float32)
    assert (with_noise(still, 1.0, random) != still).all()
    assert with_noise(np.zeros((0, 3), np.float32), 1.0, random).shape == (0, 3)
