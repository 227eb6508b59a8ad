"""
The wire contract of docs/protocol.md in code, without I/O: names, publishes, reply routes, authorization, checks.

May import: ``errors``, ``context``, ``amqp.base``.
"""
