"""
JSON-RPC 2.0 without I/O: text, messages, inspection of bodies, methods, dispatch.

May import: ``errors``, ``application_errors``, ``context``, ``options``.
"""
