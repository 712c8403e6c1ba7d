"""Prefect and MLflow around the method: the flows, the command, its servers, what a person sees.

It may import `blockqnn` and `evaluation`, and nothing imports it but benchmarks and tests.
"""
