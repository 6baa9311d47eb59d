"""Prefect flows, one stage a file, and the ``rise`` command over the same stages."""
