"""What can be recovered of what devices send, and what hiding it costs: attacks and defences of `privacy`."""
