"""A Ray cluster of several nodes on this machine, to be maltreated; all of it on 127.0.0.1.

Its nodes are what compute nodes are: they have `blockqnn`, and refuse to import what they lack.
"""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

LACKS = ("flows", "evaluation", "prefect", "mlflow", "dvc")
"""What a node that only trains has not."""

REFUSE = f"""
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {LACKS}:
            raise ImportError(f"this node has no {{name}}")


sys.meta_path.insert(0, Refuse())
"""

ROOT = Path(__file__).parent.parent


class RayCluster:
    """Nodes that come and go; `address` is the head's."""

    def __init__(self, home):
        from ray.cluster_utils import Cluster

        (home / "ray").mkdir()
        (home / "sitecustomize.py").write_text(REFUSE)
        self._home = home
        self._cluster = Cluster()
        self.head = None
        self.start_head()

    @property
    def address(self):
        return self._cluster.address

    def start_head(self, port=None):
        """A head that trains nothing; the flow's gateway drives Ray from it."""
        self.head = self._add(num_cpus=0, gcs_server_port=port)

    def add(self, **resources):
        """A compute node, of one CPU if not told otherwise."""
        return self._add(**{"num_cpus": 1, **resources})

    def leave(self, node):
        """A node goes in peace."""
        self._cluster.remove_node(node)

    def kill(self, node):
        """SIGKILL to every process of a node's own; its workers notice."""
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self):
        self._cluster.shutdown()

    def _add(self, **arguments):
        path = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{self._home}:{ROOT}"
        try:
            return self._cluster.add_node(
                node_ip_address="127.0.0.1",
                include_dashboard=False,
                temp_dir=str(self._home),
                object_store_memory=80 * 2**20,
                **arguments,
            )
        finally:
            if path is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = path


@contextmanager
def ray_cluster():
    """A cluster with a head and no node yet; skips where Ray is not installed."""
    pytest.importorskip("ray")
    home = Path(tempfile.mkdtemp(prefix="bq-"))  # sockets need a short path
    cluster = None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", str(home))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            cluster = RayCluster(home)
            yield cluster
        finally:
            if cluster is not None:
                cluster.close()
            shutil.rmtree(home, ignore_errors=True)
