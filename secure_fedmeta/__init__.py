"""Privacy-hardened federated meta-learning: the pipeline."""

__version__ = "0.1.0"
