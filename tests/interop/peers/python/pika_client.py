"""
pika's own request and reply, as its users write it: PROGRAM URL QUEUE queue|direct [--concurrent].

Reads request bodies from standard input, one a line, and prints the responses in the same order.
"""

import sys
import uuid

import pika


def main(url: str, queue: str, mode: str, *flags: str) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    direct = mode == "direct"
    replies = "amq.rabbitmq.reply-to" if direct else channel.queue_declare("", exclusive=True).method.queue
    answers = {}
    channel.basic_consume(
        replies,
        lambda _channel, _method, properties, body: answers.update({properties.correlation_id: body}),
        auto_ack=True,
    )
    sent = []
    for line in sys.stdin:
        sent.append(str(uuid.uuid4()))
        properties = pika.BasicProperties(reply_to=replies, correlation_id=sent[-1])
        channel.basic_publish("", queue, line.encode(), properties)
        while "--concurrent" not in flags and sent[-1] not in answers:
            connection.process_data_events(time_limit=10)
    while len(answers) < len(sent):
        connection.process_data_events(time_limit=10)
    for each in sent:
        print(answers[each].decode())
    connection.close()


main(*sys.argv[1:])
