"""Mega-CE2: the shared core of the device, edge and cloud tiers."""

__version__ = "0.1.0"
