"""What a person sees in the terminal: progress while something runs, and tables after it.

It may import `blockqnn` and `evaluation`, no MLflow, and Prefect only to write into a flow's log.
"""
