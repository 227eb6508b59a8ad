"""
What drives a connection: threads and event loops.

May import: ``errors``, ``logs``.
"""
