"""Rank tables, and one process for each device."""
