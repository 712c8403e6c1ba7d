"""What a person sees in the terminal: progress lines while something runs, and tables after it.

It may import `blockqnn` and `evaluation`, and neither Prefect nor MLflow.
"""
