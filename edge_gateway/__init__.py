"""The edge tier: intake, batching, inference, rounds and adapters."""
