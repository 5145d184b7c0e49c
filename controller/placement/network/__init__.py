"""The network as placement sees it: where topologies come from, and the bandwidth of the paths in them."""
