"""The model from Z[0] to scores as an ONNX graph for inference, whose weights are inputs.

So one graph serves every release of an architecture, and a swap of weights costs their packing. Streams that are
equally long go through their layers together where that is asked for; masks, positions and the rows that the
prediction reads are inputs too, so that nothing in the graph depends on data. Standard operators only.
Letters: G streams that go together, B batch, T time of the target, S of the source, d width, H heads, D layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.adapter import Adapter
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.fusion import CrossModalTransformer, sources_of
from megace2_iot.model.packing import PAIRS, Affine, Pair, pack

OPSET, IR_VERSION = 17, 8
EPSILON = 1e-5  # of every layer normalisation
Weights = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which streams go together, and whether an adapter stands between the layers."""

    crossings: tuple[tuple[Pair, ...], ...]
    memories: tuple[tuple[Modality, ...], ...]
    adapted: bool

    @classmethod
    def of(cls, present: Sequence[Modality], *, together: bool, adapted: bool) -> Plan:
        """For these modalities, all equally long if `together`."""
        pairs = tuple(pair for pair in PAIRS if pair[0] in present and pair[1] in present)
        if together:
            return cls((pairs,), (tuple(present),), adapted)
        return cls(tuple((pair,) for pair in pairs), tuple((m,) for m in present), adapted)


def weights_of(model: CrossModalTransformer, plan: Plan) -> Weights:
    """The inputs that stay from batch to batch, by name; copies."""
    config, found = model.config, Weights()
    scale = (config.width // config.heads) ** -0.5

    def add(name: str, affine: Affine, factor: float = 1.0) -> None:
        for part, tensor in zip(("weight", "bias"), affine, strict=True):
            array = np.ascontiguousarray((factor * tensor).numpy())
            found[f"{name}.{part}"] = array if len(array) > 1 else array.reshape(array.shape[-2:])

    for number, pairs in enumerate(plan.crossings):
        packed = pack(model, [f"{target}_from_{source}" for target, source in pairs], looks_at_itself=False)
        _add_halves(add, f"cross{number}", packed.keys_values[0], config.width)
        for depth, layer in enumerate(packed.layers):
            name = f"cross{number}.{depth}"
            add(f"{name}.query", layer.query, scale)
            add(f"{name}.out", layer.out)
            add(f"{name}.expand", layer.expand)
            add(f"{name}.contract", layer.contract)
        # The memory's input is sqrt(2 d) times what the encoders give.
        _add_norm(found, f"cross{number}.norm", packed.norm, math.sqrt(2 * config.width))
    for number, targets in enumerate(plan.memories):
        packed = pack(model, [f"{target}_memory" for target in targets], looks_at_itself=True)
        memory_scale = (2 * config.width // config.heads) ** -0.5
        for depth, (layer, keys_values) in enumerate(zip(packed.layers, packed.keys_values, strict=True)):
            name = f"memory{number}.{depth}"
            query = memory_scale * layer.query[0], memory_scale * layer.query[1]
            if depth < len(packed.layers) - 1:  # looks at itself: queries and values are of one product
                keys, values = _halves(keys_values, 2 * config.width)
                weight, bias = (torch.cat(parts, -1) for parts in zip(query, values, strict=True))
                add(f"{name}.queries_values", (weight, bias))
                add(f"{name}.keys", keys)
            else:
                add(f"{name}.query", query)
                _add_halves(add, name, keys_values, 2 * config.width)
            add(f"{name}.out", layer.out)
            add(f"{name}.expand", layer.expand)
            add(f"{name}.contract", layer.contract)
        _add_norm(found, f"memory{number}.norm", packed.norm, 1.0)
    head = model.head
    for name, linear in (("expand", head.expand), ("contract", head.contract), ("out", head.out)):
        add(f"head.{name}", (linear.weight.detach().T[None], linear.bias.detach()[None, None]))
    if plan.adapted:
        assert model.adapter is not None
        _add_adapter(found, model.adapter, scale)
    return found


class _Builder:
    """Nodes, constants and inputs of one graph; every method returns names of what it made."""

    def __init__(self, config: ModelConfig, weights: Mapping[str, npt.NDArray[np.float32]]) -> None:
        self.config, self._weights = config, weights
        self.nodes: list[Any] = []
        self.constants: dict[tuple[Any, ...], tuple[str, Any]] = {}
        self.inputs: dict[str, Any] = {}

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        (made,) = self.many(kind, 1, *inputs, **attributes)
        return made

    def many(self, kind: str, count: int, *inputs: str, **attributes: Any) -> list[str]:
        made = [f"{kind}_{len(self.nodes)}_{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), made, **attributes))
        return made

    def constant(self, values: Any, kind: Any = np.int64) -> str:
        array = np.array(values, kind)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            name = f"constant_{len(self.constants)}"
            self.constants[key] = name, numpy_helper.from_array(array, name)
        return self.constants[key][0]

    def input(self, name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> str:
        if name not in self.inputs:
            self.inputs[name] = helper.make_tensor_value_info(name, kind, list(shape))
        return name

    def weight(self, name: str) -> str:
        return self.input(name, self._weights[name].shape)

    # -- parts of a layer -------------------------------------------------------------
    def affine(self, x: str, name: str) -> str:
        """x W + b; of one stream (R, in), of several (G, R, in)."""
        weight, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        if self._weights[f"{name}.weight"].ndim == 2:
            return self.op("Gemm", x, weight, self.op("Squeeze", bias, self.constant([0])))
        return self.op("Add", self.op("MatMul", x, weight), bias)

    def normed(self, x: str, width: int) -> str:
        one, zero = self.constant(np.ones(width), np.float32), self.constant(np.zeros(width), np.float32)
        return self.op("LayerNormalization", x, one, zero, axis=-1, epsilon=EPSILON)

    def final(self, x: str, name: str, width: int) -> str:
        scaled = self.op("Mul", self.normed(x, width), self.weight(f"{name}.weight"))
        return self.op("Add", scaled, self.weight(f"{name}.bias"))

    def feed_forward(self, x: str, name: str, width: int) -> str:
        inner = self.op("Relu", self.affine(self.normed(x, width), f"{name}.expand"))
        return self.op("Add", x, self.affine(inner, f"{name}.contract"))

    def split_heads(self, x: str, apart: str) -> str:
        """(G B, H, T, w / H)."""
        return self.op("Transpose", self.op("Reshape", x, apart), perm=[0, 2, 1, 3])

    def split_many(self, x: str, parts: int, length: str, head: int, *, turned: bool = False) -> list[str]:
        """Of x, `parts` widths side by side, each as of `split_heads`, with a 1 before; `turned` (.., w / H, S)."""
        axes = [self.constant([-1]), length, self.constant([parts, self.config.heads, head])]
        apart = self.op("Reshape", x, self.op("Concat", *axes, axis=0))
        first = self.op("Transpose", apart, perm=[2, 0, 3, 4, 1] if turned else [2, 0, 3, 1, 4])
        return self.many("Split", parts, first, self.constant([1] * parts), axis=0) if parts > 1 else [first]

    def attend(self, q: str, k: str, v: str, mask: str, flat: str) -> str:
        """Flat again, of queries (.., T, w / H), keys (.., w / H, S), values (.., S, w / H); q is scaled already."""
        scores = self.op("Add", self.op("MatMul", q, k), mask)
        seen = self.op("MatMul", self.op("Softmax", scores, axis=-1), v)  # (1, G B, H, T, w / H)
        return self.op("Reshape", self.op("Transpose", seen, perm=[0, 1, 3, 2, 4]), flat)


def build(config: ModelConfig, plan: Plan, weights: Mapping[str, npt.NDArray[np.float32]]) -> ModelProto:
    """The graph of `plan`. Inputs beside the weights, for the group g of crossings or memories:

    `text`, `audio`, `vision` (B, T, d); `cross_mask_g` and `memory_mask_g`, added to attention weights that are
    (G B, H, T, S); `adapter_mask_g` (.., S); `positions_g` (T, 2 d); `rows_g` (G B k), the last valid steps in
    G B T; `last_mask_g` (G B, 1, k, T) for them; `counted_g` (G B, 1, k), what each adds to their mean. One that
    is the same for every sample may have 1 in place of G B.
    """
    b = _Builder(config, weights)
    _heads, d = config.heads, config.width
    length: dict[Modality, str] = {}
    normed: dict[Modality, str] = {}
    for modality in [m for group in plan.memories for m in group]:
        b.input(modality, ["batch", f"{modality}_steps", d])
        length[modality] = b.op("Slice", b.op("Shape", modality), b.constant([1]), b.constant([2]))
        normed[modality] = b.normed(modality, d)
    crossed: dict[Pair, str] = {}
    for number, pairs in enumerate(plan.crossings):
        crossed.update(zip(pairs, _cross(b, number, pairs, plan.adapted, length, normed), strict=True))
    summaries: dict[Modality, str] = {}
    for number, targets in enumerate(plan.memories):
        summaries.update(zip(targets, _remember(b, number, targets, crossed, length), strict=True))
    some = next(iter(summaries.values()))
    for modality in MODALITIES:
        if modality not in summaries:
            summaries[modality] = b.op("Mul", some, b.constant(0.0, np.float32))
    h = b.op("Concat", *(summaries[m] for m in MODALITIES), axis=-1)
    inner = b.affine(b.op("Relu", b.affine(h, "head.expand")), "head.contract")
    scores = b.affine(b.op("Add", h, inner), "head.out")
    b.nodes.append(helper.make_node("Identity", [scores], ["scores"]))
    out = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", config.outputs])
    constants = [tensor for _, tensor in b.constants.values()]
    graph = helper.make_graph(b.nodes, "megace2", list(b.inputs.values()), [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _cross(
    b: _Builder,
    number: int,
    pairs: Sequence[Pair],
    adapted: bool,
    length: Mapping[Modality, str],
    normed: Mapping[Modality, str],
) -> list[str]:
    """(B T, d) of each pair, as the memory takes it."""
    config, name = b.config, f"cross{number}"
    d, head, count = config.width, config.width // config.heads, len(pairs)
    (target, source) = pairs[0]
    flat = b.constant([count, -1, d] if count > 1 else [-1, d])
    apart = b.op("Concat", b.constant([-1]), length[target], b.constant([config.heads, head]), axis=0)
    x = _side_by_side(b, [t for t, _ in pairs], d)
    x_normed = _side_by_side(b, [normed[t] for t, _ in pairs], d)
    seen = _side_by_side(b, [normed[s] for _, s in pairs], d)
    keys = b.split_many(b.affine(seen, f"{name}.keys"), config.layers, length[source], head, turned=True)
    values = b.split_many(b.affine(seen, f"{name}.values"), config.layers, length[source], head)
    mask = b.input(f"cross_mask_{number}", [None, 1, None, None])
    for depth in range(config.layers):
        q = b.split_heads(b.affine(x_normed, f"{name}.{depth}.query"), apart)
        looked = b.attend(q, keys[depth], values[depth], mask, flat)
        x = b.op("Add", x, b.affine(looked, f"{name}.{depth}.out"))
        x = b.feed_forward(x, f"{name}.{depth}", d)
        if adapted:
            q, v = b.split_many(_tied(b, x, "adapter.queries_values"), 2, length[target], head)
            (k,) = b.split_many(_tied(b, x, "adapter.keys"), 1, length[target], head, turned=True)
            looked = b.attend(q, k, v, b.input(f"adapter_mask_{number}", [None, 1, 1, None]), flat)
            x = b.op("Add", x, _tied(b, looked, "adapter.out"))
        if depth < config.layers - 1:
            x_normed = b.normed(x, d)
    return _one_by_one(b, b.final(x, f"{name}.norm", d), count, d)


def _remember(
    b: _Builder, number: int, targets: Sequence[Modality], crossed: Mapping[Pair, str], length: Mapping[Modality, str]
) -> list[str]:
    """(B, 2 d) of each target: the mean of the last k valid steps of its memory."""
    config, name = b.config, f"memory{number}"
    w, head, count = 2 * config.width, 2 * config.width // config.heads, len(targets)
    steps = length[targets[0]]
    flat = b.constant([count, -1, w] if count > 1 else [-1, w])
    by_time = b.op("Concat", b.constant([-1]), steps, b.constant([w]), axis=0)
    positions = b.input(f"positions_{number}", [None, w])
    parts = []
    for target in targets:
        found = [crossed.get((target, source), "") for source in sources_of(target)]
        some = next(filter(None, found))
        nothing = b.constant(0.0, np.float32)
        found = [part or b.op("Mul", some, nothing) for part in found]
        parts.append(b.op("Concat", *found, axis=-1))
    x = b.op("Add", b.op("Reshape", _side_by_side(b, parts, w), by_time), positions)
    x = b.op("Reshape", x, flat)
    mask = b.input(f"memory_mask_{number}", [None, 1, None, None])
    for depth in range(config.memory_layers - 1):
        normed = b.normed(x, w)
        q, v = b.split_many(b.affine(normed, f"{name}.{depth}.queries_values"), 2, steps, head)
        (k,) = b.split_many(b.affine(normed, f"{name}.{depth}.keys"), 1, steps, head, turned=True)
        x = b.op("Add", x, b.affine(b.attend(q, k, v, mask, flat), f"{name}.{depth}.out"))
        x = b.feed_forward(x, f"{name}.{depth}", w)
    last = f"{name}.{config.memory_layers - 1}"
    normed = b.normed(x, w)
    (k,) = b.split_many(b.affine(normed, f"{last}.keys"), 1, steps, head, turned=True)
    (v,) = b.split_many(b.affine(normed, f"{last}.values"), 1, steps, head)
    rows = b.input(f"rows_{number}", [None], TensorProto.INT64)
    x = b.op("Reshape", b.op("Gather", b.op("Reshape", x, b.constant([-1, w])), rows, axis=0), flat)
    q = b.split_heads(b.affine(b.normed(x, w), f"{last}.query"), b.constant([-1, config.last_k, config.heads, head]))
    mask = b.input(f"last_mask_{number}", [None, 1, config.last_k, None])
    x = b.op("Add", x, b.affine(b.attend(q, k, v, mask, flat), f"{last}.out"))
    x = b.final(b.feed_forward(x, last, w), f"{name}.norm", w)
    if config.last_k > 1:
        counted = b.input(f"counted_{number}", [None, 1, config.last_k])
        mean = b.op("MatMul", counted, b.op("Reshape", x, b.constant([-1, config.last_k, w])))
        x = b.op("Reshape", mean, flat)
    return _one_by_one(b, x, count, w)


def _side_by_side(b: _Builder, parts: Sequence[str], width: int) -> str:
    """(G, R, width) of G arrays of as many elements; of one (R, width)."""
    if len(parts) == 1:
        return b.op("Reshape", parts[0], b.constant([-1, width]))
    shape = b.constant([1, -1, width])
    return b.op("Concat", *(b.op("Reshape", part, shape) for part in parts), axis=0)


def _one_by_one(b: _Builder, x: str, count: int, width: int) -> list[str]:
    """The other way: G of (R, width)."""
    if count == 1:
        return [x]
    parts = b.many("Split", count, x, b.constant([1] * count), axis=0)
    return [b.op("Reshape", part, b.constant([-1, width])) for part in parts]


def _tied(b: _Builder, x: str, name: str) -> str:
    """x W + b with the same weights for all streams."""
    return b.op("Add", b.op("MatMul", x, b.weight(f"{name}.weight")), b.weight(f"{name}.bias"))


def _halves(keys_values: Affine, width: int) -> tuple[Affine, Affine]:
    """Keys of all layers, and values: they lie side by side, `width` each, layer by layer."""
    parts = [tensor.chunk(tensor.shape[-1] // width, dim=-1) for tensor in keys_values]
    (keys, key_bias), (values, value_bias) = ([torch.cat(part[half::2], -1) for part in parts] for half in (0, 1))
    return (keys, key_bias), (values, value_bias)


def _add_halves(add: Callable[[str, Affine], None], name: str, keys_values: Affine, width: int) -> None:
    keys, values = _halves(keys_values, width)
    add(f"{name}.keys", keys)
    add(f"{name}.values", values)


def _add_norm(found: Weights, name: str, norm: Affine, factor: float) -> None:
    for part, tensor in zip(("weight", "bias"), norm, strict=True):
        array = (factor * tensor).numpy()[:, 0]  # (G, 1, w)
        found[f"{name}.{part}"] = np.ascontiguousarray(array if len(array) > 1 else array[0])


def _add_adapter(found: Weights, adapter: Adapter, scale: float) -> None:
    """Attention's projections, and its output's followed by the linear layer, which are one product."""
    attention, d = adapter.attention, adapter.attention.width
    weight, bias = attention.in_proj_weight.detach().clone(), attention.in_proj_bias.detach().clone()
    weight[:d] *= scale
    bias[:d] *= scale
    linear, out = adapter.linear.weight.detach(), attention.out_proj
    query, key, value = weight.T.chunk(3, dim=-1)
    query_bias, key_bias, value_bias = bias.chunk(3)
    found["adapter.queries_values.weight"] = torch.cat((query, value), -1).numpy()
    found["adapter.queries_values.bias"] = torch.cat((query_bias, value_bias)).numpy()
    found["adapter.keys.weight"], found["adapter.keys.bias"] = key.contiguous().numpy(), key_bias.numpy()
    found["adapter.out.weight"] = np.ascontiguousarray((linear @ out.weight.detach()).T.numpy())
    found["adapter.out.bias"] = (linear @ out.bias.detach() + adapter.linear.bias.detach()).numpy()
