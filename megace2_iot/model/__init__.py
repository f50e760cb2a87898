"""The cross-modal model: the only part of the core that imports torch."""
