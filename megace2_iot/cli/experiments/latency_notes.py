"""What stands under table 3: how both arms were measured, what they leave out, and whether the aims were met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from megace2_iot.cli.experiments.finished import Result
from megace2_iot.cli.experiments.latency import PAUSE, PHASES, Cell, quantile, seconds, times, told
from megace2_iot.cli.experiments.latency_tables import AIMED_AT, Results, fewer, pairs, reference, sooner

SOONER, FEWER = 20, 50  # times that are aimed at: the first answer, and bytes


def notes_of(
    cells: Mapping[str, Cell], results: Results, settings: Mapping[str, Any], clip_bytes: float, clips: int
) -> list[str]:
    """What a reader has to know, and the aims with what came out."""
    measured = [(cells[name], result) for name, result in results.items() if name in cells]
    if not measured or not settings:
        return []
    rate, users = reference(cells)
    return [
        f"The first table is of {rate:g} Mbit/s and {users} users. {clips} clips of {clip_bytes / 1000:.0f} kB in the "
        "mean; quantiles are over clips; a clip's clock starts when it is over and lies on the disk.",
        *_aims(cells, results),
        _of_link(settings, measured[0][1]["broker"]),
        _of_devices(results, measured),
        _of_cloud(settings, results, measured),
        "The paper's end to end leaves t_infer out for Mega-CE2 and counts it for cloud-only (docs/readings.md 18); "
        "ours counts everything in both. Its transmission of 97 kB in 0.0001 s and of 5 to 10 MB in 1.75 s are not of "
        "one link (docs/readings.md 26).",
        "`full` in a note: at least nine tenths of the uplink were used. `cut`: the cell's time was over before all "
        "answers were there; such clips count as longer than every other, and bytes compared are those of messages.",
        *_of_training(results),
        _of_load(results, measured),
    ]


def _aims(cells: Mapping[str, Cell], results: Results) -> list[str]:
    found = [
        f"with {cell.users} {'user' if cell.users == 1 else 'users'} {sooner(edge, cloud)} times sooner (full answer "
        f"{times(told(edge, 'full', 0.5), told(cloud, 'full', 0.5), at_least=cloud['limit'])}), "
        f"{fewer(edge, cloud)} times fewer bytes"
        for cell, edge, cloud in pairs(cells, results)
        if cell.mbit_s == AIMED_AT and edge is not None and cloud is not None
    ]
    aims = f"aimed at {SOONER} times sooner and {FEWER} times fewer"
    return [f"First answers at {AIMED_AT:g} Mbit/s: {'; '.join(found)} ({aims}; medians)."] if found else []


def _of_link(settings: Mapping[str, Any], broker: str) -> str:
    delay, more = 1000 * settings["delay"], 1000 * settings["cloud_delay"]
    return (
        f"One link for all users of a site, between them and {broker}: a token bucket each way, first come first "
        f"served, {delay:g} ms one way{f', {more:g} ms more to the cloud' if more else ''}. Edge and cloud are behind "
        "the broker with nothing between"
        + ("" if more else ", which spares the cloud its own distance (--cloud-delay adds one)")
        + ". Both arms use MQTT at QoS 1, raw files in chunks of 64 KiB that are all on their way at once; headers of "
        "TCP and IP are not counted. Bytes are all that crossed the link, health messages of devices included."
    )


def _of_devices(results: Results, measured: list[tuple[Cell, Result]]) -> str:
    alone = quantile(results["extraction"]["generation"], 0.5)
    local = [result["local"] for cell, result in measured if cell.arm == "edge"]
    first = (
        "The first answer is the device's own, by a local model that was distilled from the edge's answers to these "
        "very clips: when it comes is measured here, not how good it is. The full answer is the edge's."
        if local and all(local)
        else "No local model here: the first answer is the edge's."
    )
    return (
        f"Devices and edge are the product's own. A user's device has a processor of its own, which these share: each "
        f"clip was extracted by itself before (median {seconds(alone)} s), and a device waits for that long instead. "
        f"{first} A user sends its next clip {PAUSE:g} s after the full answer."
    )


def _of_cloud(settings: Mapping[str, Any], results: Results, measured: list[tuple[Cell, Result]]) -> str:
    head = "The cloud extracts with the same code and runs the same model in the same runtime, one thread"
    cores = settings["cores"]
    if settings["replayed"]:
        return f"{head}; its extraction takes the same measured times, on {cores} cores of its own, with a queue."
    grown = [told(result, PHASES[0], 0.5) for cell, result in measured if cell.arm == "cloud"]
    known = [value for value in grown if value is not None]
    between = f", so that t_gen there was {seconds(min(known))} to {seconds(max(known))} s" if known else ""
    return (
        f"{head}; its extraction runs in {cores} processes on {cores} cores, which broker, link and users of this "
        f"test use as well{between}. --cloud-cores replays the measured times on cores of its own instead."
    )


def _of_training(results: Results) -> list[str]:
    if (found := results.get("training")) is None:
        return []
    kilobytes = (found["round_up"] / 1000, found["round_down"] / 1000)
    return [
        f"Training: a round of {found['devices']} devices with {found['windows']} windows each, opened to offered, "
        f"over 20 Mbit/s ({kilobytes[0]:.0f} kB up, {kilobytes[1]:.0f} kB down), beside as many steps in one process "
        "of the cloud, whose raw clips had to come up before. All learners share one core here; the paper says that "
        "the durations are comparable."
    ]


def _of_load(results: Results, measured: list[tuple[Cell, Result]]) -> str:
    before = [result["load_before"] for _, result in measured]
    return (
        f"The machine's load (1 min) was {results['extraction']['load_before']:.1f} before the extraction by itself, "
        f"and {min(before):.1f} to {max(before):.1f} before each cell; some of it is the cell before."
    )
