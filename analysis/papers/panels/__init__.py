"""Families, claims and drawing that several figures share."""
