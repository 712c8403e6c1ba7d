"""Writing searches and trainings to MLflow: a copy that can be made again from the files of the
run.

It may import final trainings and runs of this package. MLflow is imported when it is first used.
"""
