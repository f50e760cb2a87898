"""The process of `megace2 device` and `megace2 replay`, started anew without the command line's libraries.

Its one argument is JSON: the settings file, and what the command line overrides by section. Until the devices run,
while libraries and data are read, there is nothing to put in order: Ctrl-C ends the process at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from device_agent.fleet import ReplaySettings
    from device_agent.sensing.device import Sensor
    from device_agent.settings import DeviceSettings
    from megace2_iot.service import Settings


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reports its use to its makers otherwise
    from device_agent.fleet import ReplaySettings, device_ids, run_fleet, shares
    from device_agent.settings import DeviceSettings
    from megace2_iot.problems import Problem
    from megace2_iot.service import Settings, find_place, run

    given = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    try:
        settings = Settings(
            Path(given["file"]) if given.get("file") else None, given.get("overrides"), given.get("defaults")
        )
        replay = settings.section("replay", ReplaySettings)
        place = find_place(settings)
        device = place.named(settings.section("device", DeviceSettings), "device")
        topics, broker = place.topics, place.broker
        if device.sources:
            sensor = _sensor(settings, replay, device)
            return run(lambda: sensor.run(topics, broker), device.id)
        played = shares(replay)
        _give_back()
    except Problem as problem:
        print(f"megace2: {problem}", file=sys.stderr)
        return 1
    ids = device_ids(replay, device)
    name = ids[0] if len(ids) == 1 else f"{device.edge}/{len(ids)}"
    return run(lambda: run_fleet(replay, played, device, topics, broker), name)


def _sensor(settings: Settings, replay: ReplaySettings, device: DeviceSettings) -> Sensor:
    """What it senses with. Raises `Problem` where the extra is not installed."""
    from megace2_iot.problems import Problem

    try:
        from device_agent.extraction.settings import SenseSettings
        from device_agent.sensing.device import Sensor
    except ModuleNotFoundError as error:
        raise Problem(f"--source needs {error.name}: pip install 'megace2-iot[sense]'") from None
    return Sensor(device, settings.section("sense", SenseSettings), replay)


def _give_back() -> None:
    """Hand the memory that reading the data took back to the system, which glibc does not do by itself.

    It lies in small pieces between what is kept: 40 MB of MOSEI's text, and the shares of other edges' devices.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


if __name__ == "__main__":
    sys.exit(main())
