"""The load tool: open and closed loops over HTTP or the queue, latency from the intended time, accounts that balance.

plan        what to run, and what came out of it: the values that are written as JSON
payload     request bodies, prepared before the run
tally       outcomes and latencies
loops       when requests are sent; knows nothing of the transport
alarm       a timer finer than the event loop's
http_target, queue_target   where they are sent
run         one measurement
search      the highest rate that passes
report      text for people
command     the command line
"""
