"""Every name on the wire, in and out: subjects, headers, JSON and checkpoints. Pure; does not import NATS."""
