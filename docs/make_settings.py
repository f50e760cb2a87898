"""Writes docs/settings.md from the settings models: `python docs/make_settings.py`.

Names, defaults and limits come from the models; what a setting means is written here. A setting without a meaning, and
a meaning without a setting, are errors (tests/docs/test_docs.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cloud_aggregator.cloud import CloudSettings
from device_agent.extraction.settings import SenseSettings
from device_agent.fleet import ReplaySettings
from device_agent.settings import DeviceSettings
from edge_gateway.settings import EdgeSettings
from megace2_iot.bus import BrokerSettings
from megace2_iot.model.training import TrainingSettings
from megace2_iot.service import SiteSettings

PAGE = Path(__file__).with_name("settings.md")
SECTIONS: dict[str, type[BaseModel]] = {
    "site": SiteSettings,
    "broker": BrokerSettings,
    "device": DeviceSettings,
    "replay": ReplaySettings,
    "sense": SenseSettings,
    "edge": EdgeSettings,
    "cloud": CloudSettings,
}
READ_BY = {
    "site": "Read by every tier and command.",
    "broker": "Read by every tier and command: where the broker is. The broker's own settings are options of "
    "`megace2 broker`.",
    "device": "Read by `megace2 device` and `megace2 replay`; with several devices in a process each gets these.",
    "replay": "Read by `megace2 device` and `megace2 replay`: what is played, and by how many devices; "
    "`megace2 replay` begins with 4.",
    "sense": "Read by `megace2 device --source` and `megace2 sense`: how features are made; see "
    "[sensing.md](sensing.md).",
    "edge": "Read by `megace2 edge`.",
    "cloud": "Read by `megace2 cloud`.",
}
MEANING = {  # setting: unit, meaning
    "site.base": ("", "first levels of every topic; at most one slash"),
    "site.name": ("", "the site, the next level; one site has one cloud"),
    "broker.url": (
        "",
        "`mqtt://host:port`, or `mqtts://host:port` for TLS; ports 1883 and 8883 where none is given; several nodes of "
        "one cluster with commas between, see [scale.md](scale.md)",
    ),
    "broker.protocol": ("", "`auto` speaks MQTT 5 first and 3.1.1 to a broker that refuses it"),
    "broker.username": ("", "account at the broker"),
    "broker.password": ("", "its password; better in the variable `MEGACE2_BROKER__PASSWORD` than in a file"),
    "broker.ca_file": ("", "certificate authority of the broker's certificate; the system's where none is given"),
    "broker.cert_file": ("", "this node's own certificate"),
    "broker.key_file": ("", "its key"),
    "broker.identity": ("", "this node's keys, a folder that `megace2 enroll` or `join` wrote, or a folder of several"),
    "broker.insecure": ("", "allow `mqtt://` to another machine, in the clear"),
    "broker.keepalive": ("s", "MQTT keepalive; a dead peer is noticed after one and a half"),
    "broker.timeout": ("s", "for a connect"),
    "broker.repeat_retained": (
        "",
        "whether to publish again and again what is retained: for a broker that does not give it to all who subscribe; "
        "`auto` finds that out, takes an enrolled site's broker for one that does, and says on a cluster twice what is "
        "new",
    ),
    "broker.repeat_every": ("s", "how often, where it is repeated; each time it is between half and one and a half"),
    "broker.session_expiry": ("s", "how long the broker keeps an absent node's subscriptions (MQTT 5)"),
    "device.id": ("", "node id, and MQTT client id: one connection a node"),
    "device.sources": ("", "what it senses with, each as `--source` takes it; none: it plays `[replay]`"),
    "device.print_answers": ("", "each answer as a line on standard output, for people or for programs"),
    "device.answers": ("", "insist on who answers; none: as the edge says"),
    "device.noise": (
        "part",
        "Gaussian noise of this part of each channel's deviation, added to what is sent; see [privacy.md](privacy.md)",
    ),
    "device.scene": ("", "what other devices sense too: their windows and these become one sample at the edge"),
    "device.training.memory": ("bytes", "of data of the training process at most"),
    "device.training.cores": ("cores", "that it may use, the last ones"),
    "device.training.warmest": ("degrees Celsius", "from which training waits until it is 5 degrees cooler"),
    "device.training.look_every": ("s", "between two looks at the temperature"),
    "device.edge": ("", "the edge that serves this device"),
    "device.state_dir": ("", "folder of the outbox and of pulled blobs"),
    "device.train": ("", "take part in rounds, where torch is installed and the data have labels"),
    "device.share_labels": ("part", "of the labelled windows whose label may leave the device, where the edge allows"),
    "device.private_windows": ("windows", "newest labelled windows kept in memory for training"),
    "device.outbox_packets": ("windows", "the outbox holds at most so many"),
    "device.outbox_bytes": (
        "bytes",
        "of records in the outbox at most; none: 512 MiB, or a tenth of what is free on its disk where that is less",
    ),
    "device.outbox_age": ("s", "older windows are shed"),
    "device.when_full": (
        "",
        "what gives way when the outbox is full; `block`: its source waits. See [reliability.md](reliability.md)",
    ),
    "device.commit_interval": ("s", "windows that come within it share a commit; 0 commits each at once"),
    "device.fsync": ("", "how much a power cut may take; see [reliability.md](reliability.md)"),
    "device.replay_rate": ("windows/s", "of what waited through an outage; 0 is as fast as the edge allows"),
    "device.health_interval": ("s", "between two health messages"),
    "device.metrics_port": ("", "Prometheus figures of the whole process, on loopback; 0 is none"),
    "replay.source": ("", "`synthetic`, a data set's file or folder, or a recording"),
    "replay.devices": ("", "devices in this process, each with its own connection"),
    "replay.speed": ("times", "the data's own clock; 0 is as fast as possible"),
    "replay.split": ("", "who learns and who is held out; see [data.md](data.md)"),
    "replay.vectors": ("", "a file of word vectors, for a source with words"),
    "replay.scale_of": ("", "a checkpoint of `megace2 train`: features go on the scale of its training data"),
    "replay.seed": (
        "",
        "of the built-in corpus and of the split; one site has one, or its devices hold out other rows",
    ),
    "replay.edges": ("", "the data are dealt to so many edges"),
    "replay.index": ("", "and this process plays the share of this one, counted from 0"),
    "replay.prefix": ("", "of the device ids; empty: the edge's id. `edge-1-01` is the first device of `edge-1`"),
    "replay.blind": ("", "numbers, from 0, of the devices that have no camera"),
    "replay.only": ("", "splits that are played; validation rows always are"),
    "replay.repeat": ("", "begin again at the end"),
    "replay.stay": ("", "remain online and in rounds when the stream is over"),
    "sense.modalities": ("", "that are sensed, where the sources give them; what is left out is features off"),
    "sense.vectors": ("", "word vectors, GloVe's lines or an `.npz`; none: words are hashed from their letters"),
    "sense.max_words": ("words", "of that file, the first; each takes 16 bytes of memory"),
    "sense.text_dim": ("numbers", "of a hashed word; a file has its own width"),
    "sense.stop_words": ("", "leave out English words that carry no opinion; negations stay"),
    "sense.audio_rate": ("Hz", "rows of sound a second"),
    "sense.denoise": ("", "filter noise out of the sound before"),
    "sense.picture_rate": ("Hz", "rows of pictures a second"),
    "sense.vision_model": ("", "an ONNX model of pictures in place of the built-in descriptor"),
    "sense.vision_mean": ("", "of that model's input, RGB in 0..1; none: its metadata says"),
    "sense.vision_std": ("", "likewise"),
    "sense.vision_batch": ("pictures", "answered together by that model, the first of them late by so many"),
    "sense.window": ("s", "of live sensing; windows are cut at multiples of it since 1970, on every device alike"),
    "sense.cut": ("", "windows on that grid, or ending where nobody speaks"),
    "sense.shortest": ("s", "of a window that ends at a pause; the longest is `window`"),
    "sense.pause": ("s", "without speech that end such a window"),
    "sense.lateness": ("s", "that a window waits for a camera or microphone that has not come"),
    "sense.longest_clip": ("s", "a longer clip becomes several equal windows"),
    "edge.id": ("", "node id, and MQTT client id"),
    "edge.state_dir": ("", "the edge's files lie in a folder of its id below this one"),
    "edge.device": ("", "where the model runs; `auto` takes CUDA where there is one"),
    "edge.threads": ("threads", "of the model on a CPU"),
    "edge.runtime": (
        "",
        "what answers: `auto` takes ONNX Runtime on a CPU where the extra `onnx` is installed, else torch",
    ),
    "edge.precision": ("", "of answers: `bfloat16` is for torch, where the processor has it (docs/training.md)"),
    "edge.labelled_windows": ("windows", "the labelled store keeps the newest so many"),
    "edge.health_interval": ("s", "between two health messages"),
    "edge.metrics_port": ("", "Prometheus figures, on loopback; 0 is none"),
    "edge.quota.windows": (
        "windows/s",
        "of one device at most, however idle the edge is; 0 is any. One that was told a rate may send twice that. What "
        "is beyond waits, see [reliability.md](reliability.md#floods)",
    ),
    "edge.quota.bytes": ("bytes/s", "of one device's packets, likewise"),
    "edge.quota.burst": ("s", "of either that may come at once"),
    "edge.inference.max_batch_size": ("windows", "a batch goes when it has so many"),
    "edge.inference.max_queue_delay": (
        "s",
        "or when its oldest window has waited so long; it does not wait where no other is expected by then",
    ),
    "edge.inference.max_queued": ("windows", "that wait for the model; the broker waits from three quarters of it on"),
    "edge.inference.max_queued_bytes": ("bytes", "of them, likewise"),
    "edge.inference.remembered_answers": ("answers", "of each device that are repeated without inference"),
    "edge.scheduling.relative_bound": (
        "part",
        "largest error of a channel, of its range in the window; doubled "
        "while the model is busy more than 85 % of the time",
    ),
    "edge.scheduling.stages": ("", "stages that this edge takes; a device gets the smaller of those that both can"),
    "edge.scheduling.train": ("", "whether devices may train"),
    "edge.scheduling.share_labels": ("", "whether devices may share labels"),
    "edge.scheduling.max_unanswered": ("windows", "of one device under way at a time"),
    "edge.scheduling.windows_per_packet": ("windows", "in one packet at most, when a device catches up"),
    "edge.scheduling.answers": ("", "who answers, where the device can; see [sensing.md](sensing.md)"),
    "edge.scheduling.confidence_floor": ("part", "confidence of a local answer below which a window goes up"),
    "edge.scheduling.audit": ("part", "of the confident windows that go up all the same, so that agreement is known"),
    "edge.distillation.min_windows": ("windows", "answered, behind the first local model, and new behind each other"),
    "edge.distillation.max_windows": ("windows", "kept in memory to learn from, the newest"),
    "edge.distillation.max_bytes": ("bytes", "of them"),
    "edge.distillation.every": ("s", "at least between two local models"),
    "edge.distillation.training": ("", "of the local model; keys below"),
    "edge.forwarding.below": ("part", "confidence below which the cloud is asked; 0 is never"),
    "edge.forwarding.timeout": ("s", "for its answer, then the edge's own counts"),
    "edge.forwarding.max_waiting": ("windows", "at the cloud at a time; one more is answered here"),
    "edge.scenes.slot": ("s", "between two windows of a scene's device: its `[sense] window`"),
    "edge.scenes.deadline": ("s", "that the first window of a sample waits for the others"),
    "edge.floors": (
        "",
        "quality beyond which a modality is masked, by indicator, where not as in [sensing.md](sensing.md)",
    ),
    "edge.learning.rounds": ("", "hold rounds at all"),
    "edge.learning.adapters": ("", "fine-tune an adapter at all"),
    "edge.learning.placement": ("", "of the adapter: `inserted` between layers, or at the `output`"),
    "edge.learning.adapter_training": ("", "how the adapter is fine-tuned; keys below"),
    "edge.learning.training": ("", "how devices, and the edge itself, train in a round; keys below"),
    "edge.learning.codec": ("", "of updates, from devices and to the cloud"),
    "edge.learning.min_pause": ("s", "between two rounds; devices have other work"),
    "edge.learning.half_rate_at": ("release", "from which rounds train at half the learning rate; 0: never"),
    "edge.learning.max_busy": ("part", "of the time the model may work; above it no round is opened"),
    "edge.learning.min_deadline": ("s", "shortest deadline of a round"),
    "edge.learning.max_deadline": ("s", "longest deadline of a round"),
    "edge.learning.personalise_every": ("s", "at least between two fine-tunings of the adapter"),
    "edge.learning.max_examples": ("examples", "behind a group of a device's update; 0: any"),
    "edge.learning.max_norm_ratio": (
        "times",
        "the median norm of the last 20 updates of devices, above which one is refused; 0: any",
    ),
    "edge.learning.max_first_norm": ("times", "the model's own norm, while there were fewer than 8; 0: any"),
    "cloud.state_dir": ("", "folder of the ledger and the model store; one cloud at a time holds it"),
    "cloud.rule": ("", "of asynchronous aggregation"),
    "cloud.checks.max_norm_ratio": (
        "times",
        "the median norm of the last 20 accepted updates, above which one is held; 0: any ([updates.md](updates.md))",
    ),
    "cloud.checks.max_first_norm": ("times", "the model's own norm, while fewer than 8 were accepted; 0: any"),
    "cloud.checks.max_examples": ("examples", "behind a group of an update of an edge that `volumes` lacks; 0: any"),
    "cloud.checks.volumes": ("examples", "that an edge and its devices hold, by edge, as it was registered"),
    "cloud.checks.max_lag": ("releases", "between an update's base and the newest; 0: any"),
    "cloud.checks.quarantine": ("updates", "held at most; then the edge that has most loses its oldest"),
    "cloud.checks.quarantine_bytes": ("bytes", "of their deltas, likewise"),
    "cloud.model.preset": ("", "what release 1 is made of, on an empty store: `nano`, `mult` or `paper`"),
    "cloud.model.dims": ("channels", "width of each modality's features; devices of other widths are refused"),
    "cloud.model.seed": ("", "of release 1's weights"),
    "cloud.model.checkpoint": ("", "a safetensors checkpoint instead of a preset"),
    "cloud.data": ("", "a data set whose test rows score each release; empty: none"),
    "cloud.answer_with": ("", "a checkpoint of a larger model for what edges forward; empty: the newest release"),
    "cloud.split": ("", "of `data`; as `[replay]` has it, or releases are judged on rows that devices learn from"),
    "cloud.vectors": ("", "a file of word vectors for `data`"),
    "cloud.seed": ("", "of the split of `data`"),
    "cloud.keep_releases": ("releases", "whose models stay on disk; older ones are deleted, their rows stay"),
    "cloud.durable": ("", "wait for the disk before an update counts as received"),
    "cloud.health_interval": ("s", "between two health messages"),
    "cloud.metrics_port": ("", "Prometheus figures, on loopback; 0 is none"),
}
TRAINING = {
    "learning_rate": "of AdamW",
    "batch_size": "examples in a step",
    "epochs": "passes over the samples",
    "loss": "`l1`, `smooth_l1` or `mse`",
    "clip_norm": "bound of the whole gradient's norm",
    "weight_decay": "decoupled: a part of the parameter, times the learning rate, a step",
    "proximal_mu": "pull towards the base that training began from (FedProx)",
    "schedule": "of the learning rate: `constant`, or `cosine`, which falls to 0 over all epochs",
    "precision": "of products: `bfloat16` is faster where the processor has it and the model is wide",
    "max_seconds": "s after which training stops between two batches",
}
HEAD = """# Settings

<!-- Written by docs/make_settings.py; edit that file. -->

One TOML file serves every tier: `--config FILE`, or `megace2.toml` in the working directory where it exists. Each tier
reads its own sections. Later sources win:

1. defaults (this page);
2. the file;
3. variables `MEGACE2_SECTION__KEY`, such as `MEGACE2_BROKER__URL`. A value that begins with `[`, `{` or `"` is read as
   JSON, any other as text, from which numbers are read where numbers belong:
   `MEGACE2_EDGE__INFERENCE='{"max_queued": 64}'`;
4. the command line.

A later source changes the keys that it names, within tables too: with `[cloud.model]` in the file,
`megace2 cloud --preset mult` keeps its `dims`.

An unknown section, key or variable is an error that names the nearest known one. Two more variables are read:
`MEGACE2_LOG` is `debug`, `info` (the default), `warning`, `error`, or `json` for one JSON object a line;
`MEGACE2_DATA` and `MEGACE2_CONFORMANCE` name folders that only tests read.

A limit such as `1..3600` is inclusive. Where the unit is *part*, 1 is the whole.
"""


def settings(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Every setting below `prefix`, tables opened."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from settings(info.annotation, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", info


def everything() -> dict[str, FieldInfo]:
    return {name: info for section, model in SECTIONS.items() for name, info in settings(model, section)}


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {json.dumps(part)}" for key, part in value.items())
        return f"`{{ {inside} }}`" if inside else "`{}`"
    return f"`{json.dumps(value, default=str)}`"


def _limits(info: FieldInfo) -> str:
    choices = _choices(info.annotation)
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    found: dict[str, Any] = {}
    for rule in info.metadata:
        for name in ("ge", "gt", "le", "max_length", "pattern"):
            if getattr(rule, name, None) is not None:
                found[name] = getattr(rule, name)
    if "max_length" in found:
        return f"at most {found['max_length']} characters"
    low = f"{found['ge']:,}" if "ge" in found else f"above {found['gt']:,}" if "gt" in found else ""
    high = f"{found['le']:,}" if "le" in found else ""
    if "pattern" in found:
        return "a node id" if "[a-z0-9]" in found["pattern"] else found["pattern"].strip("^()$").replace("|", ", ")
    if high:
        return f"{low}..{high}" if "ge" in found else f"{low}, to {high}"
    return f"from {low}" if "ge" in found else low


def _choices(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) is dict:  # its keys are in the default
        return ()
    return next((c for part in get_args(annotation) if (c := _choices(part))), ())


def page() -> str:
    """The whole page. Raises KeyError for a setting without a meaning, ValueError for the reverse."""
    known = everything()
    if extra := MEANING.keys() - known.keys():
        raise ValueError(f"docs/make_settings.py explains settings that are gone: {', '.join(sorted(extra))}")
    lines = [HEAD]
    for section in SECTIONS:
        lines += [f"## [{section}]", "", READ_BY[section], ""]
        lines += ["| setting | default | unit | limits | meaning |", "|---|---|---|---|---|"]
        for name, info in known.items():
            if name.startswith(section + "."):
                unit, meaning = MEANING[name]
                key = name.removeprefix(section + ".")
                lines.append(f"| `{key}` | {_default(info)} | {unit} | {_limits(info)} | {meaning} |")
        lines.append("")
    lines += ["A name with a dot lies in a table: `inference.max_queued` is `max_queued` of `[edge.inference]`.", ""]
    lines += ["## Keys of `training` and `adapter_training`", "", "| key | default | meaning |", "|---|---|---|"]
    for field in fields(TrainingSettings):
        lines.append(f"| `{field.name}` | `{json.dumps(field.default)}` | {TRAINING[field.name]} |")
    lines += ["", "A key that a device does not know is left out there."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
