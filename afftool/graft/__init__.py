"""Fusions put into a network of the user's own: the sites of its graph, and what is grafted there.

`graft_network("mynets:build:at=add", "iaff")` gives the network with iAFF at its additions.
"""

from afftool.graft.saved import graft_network

__all__ = ["graft_network"]
