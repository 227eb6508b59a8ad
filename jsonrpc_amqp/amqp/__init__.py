"""
AMQP 0-9-1: the seam (``base``), the connection to RabbitMQ, and the broker in memory. Moves bytes; knows no JSON.

May import: ``errors``, ``options``, ``runtime``.
"""
