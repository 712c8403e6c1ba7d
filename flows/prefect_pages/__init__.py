"""What people see of a flow in Prefect: the form that begins a run, and the page of a run.

It imports Prefect, and nothing of the flows.
"""
