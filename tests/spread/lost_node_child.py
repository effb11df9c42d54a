"""Draws with two workers of a Ray cluster of two machines, made up, of which one is lost.

python lost_node_child.py FOLDER, a model; says what was told, and how many samples there are.
"""

import json
import os
import sys

import ray
from ray.cluster_utils import Cluster

from hydragen_tree.sample.sampler import Sampler
from hydragen_tree.spread.ray_crew import find_source, ray_crew
from hydragen_tree.spread.spread_sampler import SpreadSampler
from tests.sample.test_sampler import SETTINGS, prompts
from tests.spread.test_processes import N, load_all


def main(folder: str) -> None:
    """Loses the second machine while both draw."""
    machine = {"num_cpus": 1, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=machine)
    second = cluster.add_node(num_cpus=1)
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    sampler = Sampler(find_source(folder), max_rows=8)
    said: list[str] = []
    with SpreadSampler(sampler, ray_crew(sampler), said.append) as spread:
        load_all(spread)
        samples = spread.sample(prompts(), N, SETTINGS)
        drawn = [next(samples)]
        cluster.remove_node(second, allow_graceful=False)
        drawn += samples
    names = sorted((sample.task_id, sample.sample_index) for sample in drawn)
    print(json.dumps({"said": said, "names": names}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # Ray's own end waits for the machine that is gone
