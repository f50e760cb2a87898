"""Our model against numbers of the released MulT code: 2e-5 forward, as an independent implementation met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from megace2_iot.features import MODALITIES
from megace2_iot.model.attention import BlockDropout, Encoder, MultiHeadAttention, look_mask
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset
from megace2_iot.model.mult_names import convert, from_mult, inside_encoder
from megace2_iot.stem import Stem, sinusoids

Vectors = dict[str, Tensor]
Read = Callable[[str], tuple[Vectors, dict[str, str]]]
NO_DROPOUT = BlockDropout(0.0, 0.0, 0.0, 0.0)
LETTERS = {"text": "l", "audio": "a", "vision": "v"}


def close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to 2e-5 absolute (and relative, for the large ones)."""
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=2e-5)


def batch_first(x: Tensor) -> Tensor:
    return x.transpose(0, 1)


def weights(tensors: Vectors, rename: Callable[[str], str] = str) -> Vectors:
    return {rename(name[2:]): tensor for name, tensor in tensors.items() if name.startswith("w.")}


@pytest.mark.parametrize("width", [6, 30, 31])
def test_positions(vectors: Read, width: int) -> None:
    """The sinusoid table, and no position where channel 0 is exactly 0.0."""
    tensors, _ = vectors("position_embedding")
    table = tensors[f"table_{width}"]
    # Row 0 of the reference's table stands for padding, so its row t + 1 is our row t.
    close(torch.from_numpy(sinusoids(len(table) - 1, width)), table[1:])
    first = tensors[f"in_{width}"]  # (B, T), channel 0
    for channel, expected in zip(first.numpy(), tensors[f"out_{width}"], strict=True):
        identity = torch.zeros(1, 1, width)
        identity[..., 0] = 1.0
        stem = Stem(dict.fromkeys(MODALITIES, identity.numpy()), mult_compat=True)
        z = stem.embed("audio", channel[:, None])
        z[:, 0] -= width**0.5 * channel
        close(torch.from_numpy(z), expected)


def test_multihead_attention(vectors: Read) -> None:
    """Cross and self attention, with and without the mask."""
    tensors, about = vectors("multihead_attention")
    attention = MultiHeadAttention(int(about["embed_dim"]), int(about["num_heads"]))
    attention.load_state_dict(weights(tensors))
    q, kv = batch_first(tensors["q"]), batch_first(tensors["kv"])
    cross, own = tensors["mask_7x11"] == 0.0, tensors["mask_7x7"] == 0.0
    close(batch_first(attention(q, kv)), tensors["cross_out"])
    close(batch_first(attention(q, kv, cross)), tensors["cross_masked_out"])
    close(batch_first(attention(q)), tensors["self_out"])
    close(batch_first(attention(q, None, own)), tensors["self_masked_out"])


def mult_embedded(x: Tensor) -> Tensor:
    """The reference's encoder input: no position where channel 0 is exactly 0.0."""
    positions = torch.from_numpy(sinusoids(x.shape[1], x.shape[2]))
    return x.shape[2] ** 0.5 * x + positions * (x[..., :1] != 0.0)


def run_encoder(vectors: Read, file: str, residual: str) -> tuple[Encoder, dict[str, Tensor], Vectors]:
    """The encoder with the file's weights, what it made of the file's input, and the file."""
    tensors, about = vectors(file)
    q, kv = batch_first(tensors["q"]).requires_grad_(), batch_first(tensors["kv"]).requires_grad_()
    width = q.shape[-1]
    config = {"width": width, "heads": int(about["num_heads"]), "layers": int(about["layers"]), "ffn_ratio": 4}
    encoder = Encoder(**config, dropout=NO_DROPOUT, residual=residual)
    encoder.load_state_dict(weights(tensors, inside_encoder))
    steps = [torch.full((len(x),), x.shape[1]) for x in (q, kv)]
    mask = look_mask(*steps, q.shape[1], kv.shape[1], causal=True) if about["attn_mask"] == "true" else None
    made: dict[str, Tensor] = {"q": q, "kv": kv}
    for i, layer in enumerate(encoder.layers):
        layer.register_forward_hook(lambda _m, _i, out, i=i: made.update({f"layer{i}_out": out}))
    made["out"] = encoder(mult_embedded(q), mult_embedded(kv), mask)
    return encoder, made, tensors


@pytest.mark.parametrize("case", ["mask", "nomask", "same_T", "eq2"])
def test_encoder(vectors: Read, case: str) -> None:
    """Two layers, with the mask's offset, without a mask, at equal lengths, and as equation (2) is printed."""
    residual = "eq2" if case == "eq2" else "preln"
    _, made, tensors = run_encoder(vectors, f"encoder_cross_2layer_{case}", residual)
    for name in ("layer0_out", "layer1_out", "out"):
        close(batch_first(made[name]), tensors[name])


@pytest.mark.parametrize("case", ["mask", "nomask", "same_T"])
def test_encoder_gradients(vectors: Read, case: str) -> None:
    """What flows back into inputs and weights."""
    encoder, made, tensors = run_encoder(vectors, f"encoder_cross_2layer_{case}", "preln")
    made["out"].backward(batch_first(tensors["grad_seed"]))
    torch.testing.assert_close(batch_first(made["q"].grad), tensors["grad_q"], rtol=1e-4, atol=2e-5)
    torch.testing.assert_close(batch_first(made["kv"].grad), tensors["grad_kv"], rtol=1e-4, atol=2e-5)
    for name, expected in tensors.items():
        if name.startswith("gradw."):
            ours = encoder.get_parameter(inside_encoder(name[6:]))
            torch.testing.assert_close(ours.grad, expected, rtol=1e-4, atol=2e-5)


def full_model(vectors: Read) -> tuple[CrossModalTransformer, Vectors]:
    tensors, _ = vectors("mult_full_unaligned")
    dims = {m: tensors[f"x_{LETTERS[m]}"].shape[-1] for m in MODALITIES}
    shape = {"width": 30, "heads": 5, "layers": 2, "memory_layers": 3}
    config: ModelConfig = replace(preset("mult", dims), **shape, mult_compat=True)
    model = CrossModalTransformer(config).eval()
    ours = convert({name: tensor.numpy() for name, tensor in weights(tensors).items()})
    model.load_state_dict({name: torch.from_numpy(tensor.copy()) for name, tensor in ours.items()})
    return model, tensors


def answers(model: CrossModalTransformer, tensors: Vectors) -> Tensor:
    features = {m: tensors[f"x_{LETTERS[m]}"] for m in MODALITIES}
    lengths = {m: torch.full((len(x),), x.shape[1]) for m, x in features.items()}
    return model(model.embed(features, lengths), lengths)


def test_the_whole_model(vectors: Read) -> None:
    """Three streams of unequal lengths: every encoder's output, the summaries and the answer."""
    model, tensors = full_model(vectors)
    made: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda _module, _inputs, out: made.update({name: out})

    hidden = [name for name in tensors if name.startswith("h.")]
    for name in hidden:
        ours = from_mult(f"{name[2:]}.layer_norm.weight").split(".")[0]
        model.get_submodule(ours).register_forward_hook(remember(name))
    model.head.register_forward_pre_hook(lambda _module, inputs: made.update(last_hs=inputs[0]))
    close(answers(model, tensors), tensors["y"])
    close(made["last_hs"], tensors["last_hs"])
    for name in hidden:
        close(batch_first(made[name]), tensors[name])


def test_one_training_step(vectors: Read) -> None:
    """L1 loss, gradient norm, clipped gradients, one Adam step and the answer after it."""
    model, tensors = full_model(vectors)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    loss = nn.functional.l1_loss(answers(model, tensors), tensors["target"])
    loss.backward()
    close(loss.detach(), tensors["l1_loss"])
    norm = nn.utils.clip_grad_norm_(model.parameters(), 0.8)
    torch.testing.assert_close(norm, tensors["grad_norm_before_clip"], rtol=1e-4, atol=0.0)

    def compare(prefix: str, of: Callable[[nn.Parameter], Tensor]) -> None:
        for name in (n for n in tensors if n.startswith(prefix)):
            theirs = tensors[name]
            ours = of(model.get_parameter(from_mult(name.removeprefix(prefix)))).detach()
            close(ours.permute(2, 1, 0) if "proj_" in name and ours.dim() == 3 else ours, theirs)

    compare("clipped_grad.", lambda p: p.grad if p.grad is not None else torch.zeros_like(p))
    optimiser.step()
    compare("after_adam.", lambda p: p.data)
    close(answers(model, tensors), tensors["y_after_adam"])
