"""
A shop of three services and a web application in front of them.

Run each in a terminal, or several of each:

    python -m examples.shop.inventory
    python -m examples.shop.pricing
    python -m examples.shop.orders
    uvicorn examples.shop.front:app

and order something:

    curl -i localhost:8000/orders --json '{"customer": "ada", "lines": [{"sku": "lamp", "count": 2}]}'

``models.py`` has what they say to one another and the errors, ``descriptions.py`` what the services can do, and
``middleware.py`` what runs around every request: it times it, and carries the request id from one service to the next.

The environment variable AMQP_URL sets the broker (amqp://localhost).
"""
