"""
The two services that fastapi_app.py calls, in one process.

    python examples/fastapi_services.py

The environment variable AMQP_URL sets the broker (amqp://localhost).
"""

import os

from jsonrpc_amqp import Server

URL = os.environ.get("AMQP_URL", "amqp://localhost")
PRICES = {"bread": 3.5, "salt": 0.8}
STOCK = {"bread": 12, "salt": 0}

prices = Server(URL, service="shop.prices", methods={"price.of": PRICES.get})
stock = Server(URL, service="shop.stock", methods={"stock.of": STOCK.get})


def main() -> None:
    with prices:  # its threads serve beside those of the other
        stock.serve_forever()


if __name__ == "__main__":
    main()
