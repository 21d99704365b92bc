"""Data sets that ship with the product; PROVENANCE.md tells where each comes from."""
