"""How sure an answer is, as a function of how far its score is from zero; fitted, numpy only."""

from __future__ import annotations

from typing import Any

import numpy as np


def calibrate(scores: np.ndarray[Any, Any], truth: np.ndarray[Any, Any], steps: int = 50) -> tuple[float, float]:
    """Platt's fit of P(right) = sigmoid(a |score| + b), by Newton with a weak prior towards (1, 0)."""
    x = np.stack([np.abs(scores), np.ones(len(scores))], axis=1).astype(np.float64)
    y = ((scores >= 0) == (truth >= 0)).astype(np.float64)
    prior, theta = np.array([1.0, 0.0]), np.array([1.0, 0.0])
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-np.clip(x @ theta, -30, 30)))
        gradient = x.T @ (p - y) + (theta - prior)
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.eye(2)
        move = np.linalg.solve(hessian, gradient)
        theta = theta - move
        if np.abs(move).max() < 1e-6:
            break
    return float(theta[0]), float(theta[1])
