"""A task that computes with torch; it travels with the kit (see `support.clusters`)."""

from kit.experiment.cluster.site import Site


def threads(site: Site, item: object) -> int:
    import torch

    return torch.get_num_threads()
