"""Store and forward: what a device has sensed and its edge has not answered, on the disk until it is."""

from device_agent.outbox.bounds import Bounds
from device_agent.outbox.file import OutboxError
from device_agent.outbox.outbox import Due, Outbox

__all__ = ["Bounds", "Due", "Outbox", "OutboxError"]
