"""From sources of raw media to windows of features: what `megace2 device --source` and `megace2 sense` run."""
