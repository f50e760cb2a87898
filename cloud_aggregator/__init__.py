"""The cloud tier: asynchronous aggregation, model store and releases."""
