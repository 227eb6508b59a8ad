"""
JSON-RPC 2.0 without I/O: text, messages, inspection of bodies, dispatch.

May import: ``errors``, ``context``, ``options``.
"""
