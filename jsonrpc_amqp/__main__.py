"""``python -m jsonrpc_amqp``: the same as the command ``jsonrpc-amqp``."""

from .cli import main

main(prog_name="jsonrpc-amqp")
