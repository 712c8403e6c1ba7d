"""Prefect and MLflow around `blockqnn`: flows, workers, tracking, servers and the command line."""
