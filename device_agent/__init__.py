"""The device tier: sources, outbox, agent and learner."""
