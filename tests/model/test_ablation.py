"""The rows of table 4: what each part looks at, and what it ignores."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.ablation import AblationConfig, SingleTarget, Unimodal
from megace2_iot.model.config import preset
from megace2_iot.model.fusion import CrossModalTransformer

DIMS: dict[Modality, int] = {"text": 8, "audio": 5, "vision": 4}
NANO = preset("nano", DIMS)


def batch() -> tuple[dict[Modality, Tensor], dict[Modality, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    values = {m: torch.randn(3, 6 + i, DIMS[m], generator=generator) for i, m in enumerate(MODALITIES)}
    return values, {m: torch.full((3,), x.shape[1]) for m, x in values.items()}


def heard_by(model: torch.nn.Module) -> list[str]:
    """Modalities whose features the answer follows."""
    values, lengths = batch()
    for x in values.values():
        x.requires_grad_()
    model(values, lengths).sum().backward()
    return [m for m, x in values.items() if x.grad is not None and x.grad.abs().sum() > 0]


@pytest.mark.parametrize("target", MODALITIES)
def test_one_modality_hears_itself_alone(target: Modality) -> None:
    """The others may be there or not."""
    model = Unimodal(AblationConfig(NANO, target)).eval()
    assert heard_by(model) == [target]
    values, lengths = batch()
    torch.testing.assert_close(model({target: values[target]}, lengths), model(values, lengths))


@pytest.mark.parametrize("target", MODALITIES)
def test_one_target_hears_all_three(target: Modality) -> None:
    """Its sources come in by way of the target's steps."""
    assert sorted(heard_by(SingleTarget(AblationConfig(NANO, target)).eval())) == sorted(MODALITIES)


@pytest.mark.parametrize("target", MODALITIES)
def test_one_target_is_a_part_of_the_whole(target: Modality) -> None:
    """With the whole model's tensors it comes to the summary that the whole model has of this target."""
    whole = CrossModalTransformer.seeded(replace(NANO, last_k=2), seed=1).eval()
    part = SingleTarget(AblationConfig(whole.config, target)).eval()
    shared = {n: p for n, p in whole.state_dict().items() if n in part.state_dict() and not n.startswith("head.")}
    part.load_state_dict(shared, strict=False)
    summaries: dict[str, Tensor] = {}
    whole.head.register_forward_pre_hook(lambda _module, inputs: summaries.update(whole=inputs[0]))
    part.head.register_forward_pre_hook(lambda _module, inputs: summaries.update(part=inputs[0]))
    values, lengths = batch()
    lengths["vision"] = torch.tensor([8, 0, 3])
    lengths["audio"] = torch.tensor([7, 0, 0])
    whole(whole.embed(values, lengths), lengths)
    part(values, lengths)
    at = 32 * MODALITIES.index(target)
    torch.testing.assert_close(summaries["part"], summaries["whole"][:, at : at + 32], atol=1e-6, rtol=1e-5)


def test_a_target_that_is_absent_gets_a_constant() -> None:
    """Nothing was said, so nothing can be answered; it is no error, since other batches have it."""
    values, lengths = batch()
    del values["text"]
    for model in (Unimodal(AblationConfig(NANO, "text")), SingleTarget(AblationConfig(NANO, "text"))):
        answer = model.eval()(values, lengths)
        assert answer.shape == (3, 1)
        assert torch.equal(answer[0], answer[2])


def test_a_config_survives_json() -> None:
    """Anything else is refused in words."""
    config = AblationConfig(NANO, "audio")
    assert AblationConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="not an AblationConfig: 'model'"):
        AblationConfig.from_json("{}")
    with pytest.raises(ValueError, match="a target is one of text, audio, vision"):
        AblationConfig(NANO, "smell")
