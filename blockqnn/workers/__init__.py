"""Where trainings run: in this process, in processes of this machine, or on a Ray cluster.

The top of the package: it may import everything below, and only flows and benchmarks import it.
Hands on no names, since child processes and Ray nodes start here.
"""
