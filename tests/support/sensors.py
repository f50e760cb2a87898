"""A device that senses, and a cloud whose model takes what it makes."""

from device_agent.extraction.settings import SenseSettings
from device_agent.fleet import ReplaySettings
from device_agent.sensing.device import Sensor
from device_agent.settings import DeviceSettings

DIMS = {"text": 300, "audio": 74, "vision": 35}


def cloud_for(lab):
    """A cloud whose model takes what is sensed."""
    return lab.cloud(state_dir=lab.folder / "own", model={"dims": DIMS})


def sensor(lab, *sources, sense=None, **settings):
    """A device that senses, as a coroutine."""
    device = DeviceSettings.model_validate(
        {"id": "cam-1", "sources": sources, "state_dir": lab.folder / "devices", "train": False, **settings}
    )
    made = Sensor(device, SenseSettings.model_validate({"window": 1.0, **(sense or {})}), ReplaySettings(speed=0.0))
    return made.run(lab.topics, lab.broker)
