"""Writing searches and trainings to MLflow, which can be made again from the files of a run.

It may import final trainings and runs of this package. MLflow is imported when it is first used.
"""
