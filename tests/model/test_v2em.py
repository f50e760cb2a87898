"""V2EM-lite, and its reader of faces behind a weight file that the user has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from megace2_iot.features import Modality
from megace2_iot.model.baselines.v2em_faces import FaceReader, RepVggBlock
from megace2_iot.model.baselines.v2em_lite import V2emLite, V2emLiteConfig

DIMS: dict[Modality, int] = {"text": 8, "audio": 5, "vision": 64}


def their_state() -> dict[str, Tensor]:
    """A state dict under V2EM's names, with other parts that are none of the reader's business."""
    torch.manual_seed(0)
    state: dict[str, Tensor] = {"v_out.weight": torch.zeros(6, 64), "weighted_fusion.weight": torch.zeros(1, 3)}

    def norm(name: str, size: int) -> None:
        state[f"{name}.weight"], state[f"{name}.bias"] = 1 + 0.1 * torch.randn(size), 0.1 * torch.randn(size)
        state[f"{name}.running_mean"], state[f"{name}.running_var"] = 0.1 * torch.randn(size), torch.rand(size) + 0.5
        state[f"{name}.num_batches_tracked"] = torch.tensor(3)

    state["V.0.weight"], state["V.0.bias"] = torch.randn(64, 3, 5, 5) / 9, torch.randn(64)
    norm("V.1", 64)
    for place, before, after in ((4, 64, 64), (5, 64, 64), (6, 64, 128), (8, 128, 256), (10, 256, 512)):
        for branch, kernel in (("rbr_dense", 3), ("rbr_1x1", 1)):
            state[f"V.{place}.{branch}.conv.weight"] = torch.randn(after, before, kernel, kernel) / before**0.5 / kernel
            norm(f"V.{place}.{branch}.bn", after)
        if before == after:
            norm(f"V.{place}.rbr_identity", before)
    for place, rows, columns in ((0, 1024, 4608), (2, 64, 1024)):
        state[f"v_flatten.{place}.weight"] = torch.randn(rows, columns) / columns**0.5
        state[f"v_flatten.{place}.bias"] = torch.randn(rows)
    return state


def test_a_fused_block_gives_the_same_answers() -> None:
    """Three branches and their running statistics, or one convolution."""
    torch.manual_seed(0)
    for before, after in ((4, 4), (4, 6)):
        block = RepVggBlock(before, after)
        for _ in range(3):
            block(torch.randn(5, before, 7, 7))  # moves the statistics
        x = torch.randn(2, before, 7, 7)
        expected = block.eval()(x)
        block.fuse()
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-4)


def test_faces_become_vision_features(tmp_path: Path) -> None:
    """From V2EM's parameters and pictures to an answer of V2EM-lite."""
    torch.save(their_state(), tmp_path / "v2em.pt")
    reader = FaceReader.from_file(tmp_path / "v2em.pt")
    pictures = torch.randint(0, 256, (5, 3, 60, 48), dtype=torch.uint8)
    with torch.inference_mode():
        vectors = reader(pictures)
        torch.testing.assert_close(reader(pictures[:, :, 6:54]), vectors)  # the middle is what counts
        scores = V2emLite(V2emLiteConfig(dims=DIMS)).eval()({"vision": vectors[None]}, {"vision": torch.tensor([5])})
    assert vectors.shape == (5, 64)
    assert scores.shape == (1, 1)
    assert vectors.std(dim=0).min() > 0


def test_a_file_without_a_reader_is_refused(tmp_path: Path) -> None:
    """Nothing is made up where weights are missing."""
    path = tmp_path / "v2em.pt"
    torch.save({"t_out.weight": torch.zeros(6, 768)}, path)
    with pytest.raises(ValueError, match="holds no reader of faces"):
        FaceReader.from_file(path)
    state = their_state()
    del state["V.6.rbr_dense.bn.running_var"]
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"does not fit V2EM's.*\n.*blocks\.2\.wide\.norm\.running_var"):
        FaceReader.from_file(path)


def test_pictures_are_no_features() -> None:
    """V2EM-lite says what it takes; so does the reader."""
    model = V2emLite(V2emLiteConfig(dims=DIMS))
    with pytest.raises(ValueError, match=r"vision features are \(1, 5, 3, 48, 48\), expected \(B, T, 64\)"):
        model({"vision": torch.zeros(1, 5, 3, 48, 48)}, {"vision": torch.tensor([5])})
    with pytest.raises(ValueError, match=r"faces are \(N, 3, 48, 48\) or larger, not \(1, 3, 32, 32\)"):
        FaceReader()(torch.zeros(1, 3, 32, 32))


def test_the_steps_have_no_order() -> None:
    """V2EM adds no positions."""
    torch.manual_seed(0)
    model = V2emLite(V2emLiteConfig(dims=DIMS)).eval()
    x, steps = torch.randn(1, 6, 8), {"text": torch.tensor([6])}
    torch.testing.assert_close(model({"text": x.flip(1)}, steps), model({"text": x}, steps), atol=1e-5, rtol=1e-4)
