"""Runs through Prefect; the only package that imports it."""
