"""The service that knows how many of each article there are."""

from __future__ import annotations

import os
from threading import Lock

from jsonrpc_amqp import Server, method

from .middleware import AROUND_METHODS
from .models import Line, NoSuchArticle, OutOfStock


class Inventory:
    def __init__(self, left: dict[str, int]) -> None:
        self._left = left
        self._lock = Lock()  # methods run on several threads

    @method
    def take(self, lines: list[Line]) -> None:
        """Take articles out, all or none."""
        with self._lock:
            for line in lines:
                left = self._left.get(line.sku)
                if left is None:
                    raise NoSuchArticle(line.sku)
                if left < line.count:
                    raise OutOfStock(line.sku, left)
            for line in lines:
                self._left[line.sku] -= line.count


server = Server(os.environ.get("AMQP_URL", "amqp://localhost"), "shop.inventory", middleware=AROUND_METHODS)
server.register(Inventory({"lamp": 5, "rug": 1}))

if __name__ == "__main__":
    server.serve_forever()
