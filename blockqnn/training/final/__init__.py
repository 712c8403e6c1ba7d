"""One final training: a job in a file, a process that does it, a result in a file.

Hands on no names, since that process starts here: `python -m blockqnn.training.final DIRECTORY`.
"""
