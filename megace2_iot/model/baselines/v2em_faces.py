"""V2EM's reader of faces: pictures in, one vector a frame out, which are vision features for V2EM-lite.

    conv 5x5, norm, relu, pool -> three blocks, pool -> block, pool -> block, pool -> two linear layers

A block is RepVGG's (Ding et al., 2021): three branches in training, which `fuse` folds into one convolution. The
weights come from a state dict of V2EM that the user has; without one the reader would only be noise.
Letters: N frames, C channels.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.model.torch_file import read_state_dict

SIDE = 48  # pixels
MEAN, SPREAD = (159.0, 111.0, 102.0), (37.0, 33.0, 32.0)  # of red, green and blue, 0 to 255
_PLACES = {
    "0": "first",
    "1": "norm",
    "4": "blocks.0",
    "5": "blocks.1",
    "6": "blocks.2",
    "8": "blocks.3",
    "10": "blocks.4",
}
_BRANCHES = {"rbr_dense": "wide", "rbr_1x1": "point", "rbr_identity": "same"}
_LINEAR = {"0": "expand", "2": "contract"}


class FaceReader(nn.Module):
    """Faces (N, 3, 48, 48), or any frames cut to their middle, as vectors (N, width)."""

    mean: Tensor
    spread: Tensor

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 5, padding=2)
        self.norm = nn.BatchNorm2d(64)
        sizes = ((64, 64), (64, 64), (64, 128), (128, 256), (256, 512))
        self.blocks = nn.ModuleList(RepVggBlock(before, after) for before, after in sizes)
        self.expand = nn.Linear(512 * 3 * 3, 1024)
        self.contract = nn.Linear(1024, width)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("spread", torch.tensor(SPREAD)[:, None, None], persistent=False)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """The reader in a state dict of V2EM, ready for use. Raises ValueError where the file holds none."""
        state = {ours: t for name, t in read_state_dict(path).items() if (ours := _our_name(name)) is not None}
        if "contract.weight" not in state:
            raise ValueError(f"{path} holds no reader of faces: expected V2EM's parameters V.* and v_flatten.*")
        reader = cls(len(state["contract.weight"]))
        try:
            reader.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"the reader of faces in {path} does not fit V2EM's: {error}") from error
        return reader.eval().fuse()

    def forward(self, faces: Tensor) -> Tensor:
        """(N, width) of pictures (N, 3, H, W) from 0 to 255, H and W at least 48."""
        if faces.dim() != 4 or faces.shape[1] != 3 or min(faces.shape[2:]) < SIDE:
            raise ValueError(f"faces are (N, 3, {SIDE}, {SIDE}) or larger, not {tuple(faces.shape)}")
        top, left = ((side - SIDE) // 2 for side in faces.shape[2:])
        cut = faces[:, :, top : top + SIDE, left : left + SIDE].to(torch.float32)
        x = F.max_pool2d(F.relu(self.norm(self.first((cut - self.mean) / self.spread))), 2)
        for block in self.blocks[:2]:
            x = block(x)
        for block in self.blocks[2:]:
            x = F.max_pool2d(block(x), 2)
        vectors: Tensor = self.contract(F.relu(self.expand(x.flatten(1))))
        return vectors

    def fuse(self) -> Self:
        """Fold the branches of every block, for use without training."""
        for block in self.blocks:
            block.fuse()  # type: ignore[operator]
        return self


class RepVggBlock(nn.Module):
    """relu of the sum of a 3x3 and a 1x1 convolution and, where the sizes agree, the input, each normalised."""

    same: nn.BatchNorm2d | None
    fused: nn.Conv2d | None

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.before, self.after = before, after
        self.wide, self.point = NormedConv(before, after, 3), NormedConv(before, after, 1)
        self.same = nn.BatchNorm2d(before) if before == after else None
        self.fused = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_after, H, W) of (N, C_before, H, W)."""
        if self.fused is not None:
            return F.relu(self.fused(x))
        added: Tensor = self.wide(x) + self.point(x)
        return F.relu(added if self.same is None else added + self.same(x))

    def fuse(self) -> None:
        """Become one convolution with the same answers, as long as running statistics are used."""
        fused = nn.Conv2d(self.before, self.after, 3, padding=1)
        parts = [
            _folded(self.wide.conv.weight, self.wide.norm),
            _folded(F.pad(self.point.conv.weight, (1, 1, 1, 1)), self.point.norm),
        ]
        if self.same is not None:
            identity = torch.eye(self.before)[:, :, None, None]
            parts.append(_folded(F.pad(identity, (1, 1, 1, 1)), self.same))
        kernels, shifts = zip(*parts, strict=True)
        with torch.no_grad():
            fused.weight.copy_(torch.stack(kernels).sum(dim=0))
            assert fused.bias is not None
            fused.bias.copy_(torch.stack(shifts).sum(dim=0))
        self.fused = fused


class NormedConv(nn.Module):
    """A convolution that keeps the size, and its norm."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_after, H, W) of (N, C_before, H, W)."""
        normed: Tensor = self.norm(self.conv(x))
        return normed


def _folded(kernel: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The kernel (C, C, 3, 3) and the bias (C,) that a convolution and its norm come to."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return kernel * scale[:, None, None, None], norm.bias - norm.running_mean * scale


def _our_name(name: str) -> str | None:
    """Our name of V2EM's parameter; None for one of its other parts."""
    if match := re.fullmatch(r"v_flatten\.([02])\.(\w+)", name):
        return f"{_LINEAR[match[1]]}.{match[2]}"
    if (match := re.fullmatch(r"V\.(\d+)\.(.+)", name)) is None or match[1] not in _PLACES:
        return None
    inside = match[2].replace(".bn.", ".norm.")
    for theirs, ours in _BRANCHES.items():
        inside = inside.replace(theirs, ours)
    return f"{_PLACES[match[1]]}.{inside}"
