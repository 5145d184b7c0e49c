"""Store and forward: what can't be had now is asked of whoever is met, and kept for others until they come.

wants, plan, clock      which wants are kept, what to fetch next and from whom, which time it is: decided, no I/O
packets, view           wants as they are handed on, and as people and programs see them
reception, meetings     what others tell is judged; who is met, and what each is told
fetching, store         carries out the plan; the disk
custody                 puts them together, and is what the rest of a gateway knows
"""

from gateway.forwarder.custody.custody import Custody, Limits, Trust

__all__ = ["Custody", "Limits", "Trust"]
