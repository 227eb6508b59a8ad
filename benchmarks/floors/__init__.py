"""What the broker and bare AMQP clients allow, without JSON-RPC."""
