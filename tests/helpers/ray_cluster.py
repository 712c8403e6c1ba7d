"""A Ray cluster of several nodes on this machine, to be maltreated; all of it on 127.0.0.1.

Its nodes are what compute nodes are: they have `blockqnn`, and refuse to import what they lack.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

LACKS = ("flows", "evaluation", "prefect", "mlflow", "dvc")
"""What a node that only trains has not."""

NODE = """
import ctypes
import os
import sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {lacks}:
            raise ImportError("this node has no " + name)


def watch(event, arguments):
    if event == "os.rename" and str(arguments[1]).endswith("/outcome.json"):
        with open({completed!r}, "a") as log:
            log.write(str(arguments[1]) + "\\n")


sys.meta_path.insert(0, Refuse())
if any("default_worker.py" in argument for argument in sys.orig_argv):
    sys.addaudithook(watch)
    if disk := os.environ.get("TEST_SMALL_DISK"):
        libc = ctypes.CDLL(None, use_errno=True)
        libc.unshare(0x20000)  # CLONE_NEWNS: what is mounted here nobody else sees
        libc.mount(b"none", b"/", None, 0x44000, None)  # MS_REC, MS_PRIVATE
        if libc.mount(b"tmpfs", disk.encode(), b"tmpfs", 0, b"size=16k"):
            raise OSError(ctypes.get_errno(), "mount")
"""
"""Every Python process of a node begins with this: it refuses imports, tells of every outcome that
a training put on disk, and may see a small disk of its own in place of a directory.
"""

ROOT = Path(__file__).parents[2]
PATIENCE = 500.0


def wait_for(condition, what):
    """What a condition gives once it gives something."""
    deadline = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)
    return result


class RayCluster:
    """Nodes that come and go; `address` is the head's."""

    def __init__(self, home):
        from ray.cluster_utils import Cluster

        (home / "ray").mkdir()
        self._home = home
        self._completed = home / "completed"
        code = NODE.format(lacks=LACKS, completed=str(self._completed))
        (home / "sitecustomize.py").write_text(code)
        self._cluster = Cluster()
        self.head = self._add(num_cpus=0)
        self.address = self._cluster.address
        self.nodes = []

    def restart_head(self):
        """A new head at the old one's address, once the nodes of the old one have ended too."""
        while self.nodes:
            node = self.nodes.pop()
            wait_for(lambda node=node: not node.any_processes_alive(), "a node's end")
            self._cluster.worker_nodes.remove(node)
        self.head = self._add(num_cpus=0, gcs_server_port=int(self.address.split(":")[1]))

    def add(self, **resources):
        """A compute node, of one CPU if not told otherwise."""
        node = self._add(**{"num_cpus": 1, **resources})
        self.nodes.append(node)
        return node

    def have(self, count):
        """So many compute nodes, whatever a test before left."""
        while len(self.nodes) > count:
            self.leave(self.nodes[-1])
        while len(self.nodes) < count:
            self.add()

    def node_of(self, pid):
        """The node in which a process works."""
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        (node,) = [n for n in self.nodes if n.all_processes["raylet"][0].process.pid == parent]
        return node

    def completed(self, directory):
        """How often each candidate of a search was trained to its end, by number."""
        lines = self._completed.read_text().splitlines() if self._completed.exists() else []
        paths = [Path(line) for line in lines if line.startswith(f"{directory}/")]
        return Counter(int(path.parent.name) for path in paths)

    def leave(self, node):
        """A node goes in peace."""
        self.nodes.remove(node)
        self._cluster.remove_node(node)

    def kill(self, node):
        """SIGKILL to every process of a node's own; its workers notice."""
        if node in self.nodes:
            self.nodes.remove(node)
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
        patch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "5")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            cluster = RayCluster(home)
            yield cluster
        finally:
            if cluster is not None:
                cluster.close()
            shutil.rmtree(home, ignore_errors=True)
