"""Rebuilding of the files that ship in secure_fedmeta/data."""
