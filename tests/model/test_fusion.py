"""The cross-modal transformer: what an answer depends on, and what it must not depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset
from megace2_iot.model.state import stem_of

MULT_DIMS = {"text": 300, "audio": 74, "vision": 35}
Batch = tuple[dict[Modality, Tensor], dict[Modality, Tensor]]


def streams(lengths: dict[Modality, list[int]], width: int = 16, seed: int = 0) -> Batch:
    """Random Z[0] of these lengths with garbage in the padding, and the lengths."""
    generator = torch.Generator().manual_seed(seed)
    z = {m: 2 * torch.randn(len(steps), max(steps), width, generator=generator) for m, steps in lengths.items()}
    return z, {m: torch.tensor(steps) for m, steps in lengths.items()}


def alone(batch: Batch, i: int) -> Batch:
    """Sample i without its batch mates and without padding, missing modalities left out."""
    z, lengths = batch
    present = [m for m in z if lengths[m][i] > 0]
    return {m: z[m][i : i + 1, : lengths[m][i]] for m in present}, {m: lengths[m][i : i + 1] for m in present}


def touched(model: CrossModalTransformer, batch: Batch) -> set[str]:
    """Groups that an answer's gradient reaches."""
    model.zero_grad()
    model(*batch).sum().backward()
    return {n.split(".")[0] for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("last_k", [1, 3])
@pytest.mark.parametrize("residual", ["preln", "eq2"])
def test_an_answer_does_not_depend_on_batch_mates(last_k: int, residual: str) -> None:
    """Masks, offsets and pooling follow each sample's true lengths, also where a modality is missing."""
    config = replace(preset("nano", MULT_DIMS), last_k=last_k, residual=residual, layers=2)
    model = CrossModalTransformer.seeded(config, seed=2).eval()
    lengths: dict[Modality, list[int]] = {
        "text": [5, 9, 1, 0, 7, 0, 3],
        "audio": [20, 3, 11, 4, 0, 0, 0],
        "vision": [8, 8, 2, 6, 5, 9, 0],
    }
    batch = streams(lengths)
    together = model(*batch)
    for i in range(7):
        torch.testing.assert_close(model(*alone(batch, i))[0], together[i], atol=1e-5, rtol=0.0)


def test_a_missing_modality_leaves_zeros_in_the_concatenations(nano: CrossModalTransformer) -> None:
    """Without vision the answer is that of the sub-model which skips its encoders."""
    z, lengths = streams({"text": [6], "audio": [9]})
    heads: list[Tensor] = []
    memories: list[Tensor] = []
    nano.head.register_forward_pre_hook(lambda _m, args: heads.append(args[0]))
    nano.text_memory.register_forward_pre_hook(lambda _m, args: memories.append(args[0]))
    nano(z, lengths)
    assert not heads[0][:, 64:].any()  # the summary of vision
    scaled = memories[0] - nano.memory_positions(6)
    assert scaled[..., :16].abs().min() > 0.0
    assert scaled[..., 16:].abs().max() < 1e-6  # text looking at vision


def test_encoders_that_nobody_needs_are_not_computed(nano: CrossModalTransformer) -> None:
    """A device without a camera touches neither what looks at vision nor what vision looks with."""
    without_camera = {"text_from_audio", "audio_from_text", "text_memory", "audio_memory", "head"}
    assert touched(nano, streams({"text": [6, 4], "audio": [9, 9]})) == without_camera
    assert touched(nano, streams({"text": [6, 4], "audio": [9, 9], "vision": [0, 0]})) == without_camera
    assert touched(nano, streams({"text": [6], "audio": [9], "vision": [3]})) == {
        *(f"{t}_from_{s}" for t in MODALITIES for s in MODALITIES if t != s),
        *(f"{t}_memory" for t in MODALITIES),
        "head",
    }


def test_a_pair_that_never_meets_is_not_computed(nano: CrossModalTransformer) -> None:
    """Text and vision in one batch, but in no sample: their encoders stay untouched."""
    groups = touched(nano, streams({"text": [6, 0], "audio": [9, 9], "vision": [0, 5]}))
    assert not groups & {"text_from_vision", "vision_from_text"}
    assert "audio_from_vision" in groups


def test_a_lone_modality_is_still_heard(nano: CrossModalTransformer) -> None:
    """A device with a microphone only gets an answer that follows what was said, not a constant."""
    one, two = (nano(*streams({"audio": [12]}, seed=s)) for s in (1, 2))
    assert (one - two).abs() > 1e-3
    assert touched(nano, streams({"audio": [12]})) == {"audio_memory", "head"}


def test_nothing_at_all_is_refused(nano: CrossModalTransformer) -> None:
    """An empty sample is the caller's mistake, not an answer."""
    with pytest.raises(ValueError, match="at least one modality"):
        nano({}, {})
    with pytest.raises(ValueError, match="no lengths for audio"):
        nano(streams({"audio": [3]})[0], {})


def test_mult_compat_ignores_lengths_as_the_reference_does() -> None:
    """Every step counts, padded or not; without the switch the padding is masked."""
    for compat in (True, False):
        config = replace(preset("nano", MULT_DIMS), mult_compat=compat)
        model = CrossModalTransformer.seeded(config, seed=1).eval()
        z, lengths = streams({"text": [8], "audio": [12], "vision": [9]})
        shorter = {m: steps - 3 for m, steps in lengths.items()}
        assert torch.equal(model(z, lengths), model(z, shorter)) == compat


def test_a_long_sample_leaves_the_model_trainable(nano: CrossModalTransformer) -> None:
    """The table of positions grows while answering, and is no part of what is stored or averaged."""
    long = streams({"text": [200], "audio": [90]})
    with torch.inference_mode():
        answer = nano(*long)
    assert torch.isfinite(answer).all()
    assert "text_from_audio" in touched(nano, long)
    assert not [name for name in nano.state_dict() if "positions" in name]


def size(config: ModelConfig) -> int:
    return sum(p.numel() for p in CrossModalTransformer(config).parameters())


def test_parameter_counts() -> None:
    """The sizes that the design states, with inputs 300/74/35."""
    assert size(preset("nano", MULT_DIMS)) == 83_441
    assert size(preset("mult", MULT_DIMS)) == 1_540_601
    assert size(preset("paper", MULT_DIMS)) == 12_602_551


def test_shares_of_the_paper_preset() -> None:
    """Attention 39 %, linear 41 %, the rest 20 % of 50.41 MB: table 5 of the paper."""
    model = CrossModalTransformer(preset("paper", MULT_DIMS))
    sizes: Counter[str] = Counter()
    for name, parameter in model.named_parameters():
        if ".attention." in name:
            kind = "attention"
        elif ".expand." in name or ".contract." in name or name.startswith("stem."):
            kind = "rest" if name.startswith("head.") or name == "stem.table" else "linear"
        else:
            kind = "rest"
        sizes[kind] += parameter.numel()
    total = sizes.total()
    assert {kind: round(100 * n / total) for kind, n in sizes.items()} == {"attention": 39, "linear": 41, "rest": 20}
    assert round(total * 4 / 1e6, 2) == 50.41


@pytest.mark.parametrize("name", ["nano", "paper"])
def test_the_stem_in_torch_is_the_stem_in_numpy(name: str) -> None:
    """A device's Z[0] and the model's own are the same, whatever the padding."""
    model = CrossModalTransformer.seeded(preset(name, MULT_DIMS), seed=3)
    stem, rng = stem_of(model), np.random.default_rng(0)
    for modality in MODALITIES:
        values = rng.standard_normal((7, MULT_DIMS[modality])).astype(np.float32)
        padded = torch.from_numpy(np.pad(values, ((0, 4), (0, 0)), constant_values=9.0))[None]
        z = model.embed({modality: padded}, {modality: torch.tensor([7])})[modality]
        np.testing.assert_allclose(z[0, :7].detach(), stem.embed(modality, values), atol=3e-5)
    if stem.table is not None:
        ids = np.array([5, 3110, 7])
        z = model.embed({"text": torch.from_numpy(ids)[None]}, {"text": torch.tensor([3])})["text"]
        np.testing.assert_allclose(z[0].detach(), stem.embed("text", ids), atol=3e-5)


def test_a_config_survives_json() -> None:
    """A checkpoint's config says the whole architecture; anything else is refused in words."""
    config = replace(preset("paper", MULT_DIMS), residual="eq2", last_k=2)
    assert ModelConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="not a model config: unknown: colour"):
        ModelConfig.from_json('{"colour": 1}')
    with pytest.raises(ValueError, match="no preset 'huge'"):
        preset("huge", MULT_DIMS)


def test_a_family_is_an_architecture() -> None:
    """Equal configs are one family, and any difference of shape makes another."""
    nano = preset("nano", MULT_DIMS)
    same, other = preset("nano", dict(MULT_DIMS)), replace(nano, width=20)
    families = [CrossModalTransformer.seeded(c, seed).family for seed, c in enumerate((nano, same, other))]
    assert families[0] == families[1] != families[2]
    assert len(families[0]) == 12


def test_a_seed_fixes_the_weights_and_leaves_torch_alone() -> None:
    """Two clouds with one seed publish one release."""
    before = torch.random.get_rng_state()
    one, two = (CrossModalTransformer.seeded(preset("nano", MULT_DIMS), seed=5) for _ in range(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
