"""Evaluation and load: fixed cases, one client, pure scores and pure statistics.

    cases    an eval set: read, checked, and named by the sha256 of its exact bytes
    client   the load client: one file, standard library only, runs here or on the rented machine
    local    the document the client reads, and the client as a process of this machine
    samples  the client's lines, read as the hostile text they are
    score    (text, check) -> right or wrong, and why
    stats    samples -> figures, all integers with their unit in the name
    limits   thresholds against figures

What was measured is kept raw; everything in a report is a pure function of it. Importing this package imports nothing.
"""
