"""How fast is it, beside its peers and beside the limit? ``python -m benchmarks`` answers in docs/performance.md.

Each contender is a process of its own that does as it is told on standard input (actor.py; limits.c in C), so that all
are asked alike. One run asks them in turn, in changing order, on one disk, with equal durability: WAL and
``synchronous=FULL``, which the number of syncs per write beside each result shows.
"""
