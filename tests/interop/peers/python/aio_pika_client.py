"""
aio-pika, many requests at once, as its tutorial does it: PROGRAM URL QUEUE queue|direct [--concurrent].

Reads request bodies from standard input, one a line, and prints the responses in the same order.
"""

import asyncio
import sys
import uuid

import aio_pika


async def main(url: str, queue: str, mode: str, *flags: str) -> None:
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    if mode == "direct":
        replies = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
    else:
        replies = await channel.declare_queue(exclusive=True)
    waiting = {}

    async def answered(message):
        waiting.pop(message.correlation_id).set_result(message.body)

    await replies.consume(answered, no_ack=True)

    async def ask(line):
        number = str(uuid.uuid4())
        waiting[number] = asyncio.get_running_loop().create_future()
        message = aio_pika.Message(
            line.encode(), content_type="application/json", correlation_id=number, reply_to=replies.name
        )
        answer = waiting[number]
        await channel.default_exchange.publish(message, routing_key=queue)
        return await asyncio.wait_for(answer, 10)

    lines = list(sys.stdin)
    if "--concurrent" in flags:
        answers = await asyncio.gather(*map(ask, lines))
    else:
        answers = [await ask(line) for line in lines]
    for answer in answers:
        print(answer.decode())
    await connection.close()


asyncio.run(main(*sys.argv[1:]))
