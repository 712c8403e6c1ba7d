"""`blockqnn serve`: the Prefect server and its automations, the MLflow UI, and their passwords.

It may import `tracking` and what lies below it.
"""
