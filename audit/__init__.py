"""What happened: canonical entries, a hash chain, signed checkpoints, an independent verifier."""
