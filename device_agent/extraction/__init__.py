"""From raw media to features: one extractor a modality, each fed with chunks as they come."""
