"""PiCasso Gateway: the program on every router and Raspberry Pi of a community network.

    controller ── signed head, sections, specifications, image blobs ──┐   (an NDN application on a gateway's socket)
    neighbours' gateways ◄── Interests and Data over udp, tcp ──► forwarder ◄── unix socket ──► local applications
                                                                   │  │  │
           monitor ── measured links, load ── signed report ───────┘  │  └── placement_client ── last good decision
                                                       blobs on disk, named by hash          │ desired state
                                                                      └──────────────► executor ──► services ──► users

- protocol/          names, messages, hash-named objects, keys and trust: the contract with controller/ and neighbours
- forwarder/         NDN forwarding: faces, FIB, PIT, content store, blob store, segmented transfer
- monitor/           what the host and the links to the neighbours really do, as one signed report
- placement_client/  fetches, verifies and keeps decisions; the last one counts on when the controller is gone
- executor/          the other process: checks signatures and the owner's policy itself, then starts what is desired
- daemon.py          composes forwarder, monitor and placement client in one event loop; only it imports them all
- config.py          the owner's UCI file as one frozen Settings; uci.py, options.py, sections.py read it, and the
                     controller's own
- cli.py             the command picasso-gateway

The four parts never import one another: cli → daemon → parts → protocol. Inside each, what decides is pure and takes
`now`; sockets, files and clocks are in thin adapters at the edge.
"""

__version__ = "0.1.0"
