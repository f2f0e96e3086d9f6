"""A Ray cluster on this machine, and its workers, for the tests that need one."""

from pathlib import Path

import pytest

from exporter.ray_parts import load_ray

_WORKERS = (b"ray::_part", b"ray::IDLE")


@pytest.fixture(scope="module")
def cluster():
    """Ray on two CPUs."""
    ray = pytest.importorskip("ray")
    load_ray()  # which keeps it quiet
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()


def workers_of(pid):
    """Return the workers, at work or idle, of the cluster that this process started."""
    parents, names = {}, {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
            names[int(status.parent.name)] = (status.parent / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        parents[int(status.parent.name)] = int(text.rpartition(")")[2].split()[1])

    def ours(child):
        while child and child != pid:
            child = parents.get(child)
        return child == pid

    return [child for child, name in names.items() if name.startswith(_WORKERS) and ours(child)]
