"""Fan-out to bidders over HTTP: the client alone, and auctions among five and ten of them; the same over aiohttp.

    python -m benchmarks.fanout [all|client|auctions|sick|shield] ... [--seconds 4]

Bidders are a process of their own, on the loopback: `rtb lab dsps`, or for auctions by the CPU-second the same with
their answers made ahead (`benchmarks.prepared_dsps`). Figures are of this process's CPU time, which includes decoding
the request, the auction, its fan-out and the encoded answer, as in a daemon, but no HTTP edge. What aiohttp does, it
does in turns with what we do, in one run.
"""
