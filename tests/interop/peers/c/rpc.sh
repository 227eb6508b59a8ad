#!/bin/sh
# The commands of amqp-tools (librabbitmq, C): rpc.sh URL QUEUE queue
#
# Request bodies on standard input, one a line; answer bodies on standard output, in the order of the requests.
#
# amqp-publish can set reply_to but no correlation_id, so each request has a reply queue of its own. Direct reply-to is
# not possible: it takes one channel for both ways, and each of these commands has its own.
set -eu

url=${1%/} # To librabbitmq a slash at the end names the virtual host "", to others "/".
request_queue=$2
[ "$3" = queue ] || { echo "queue, not $3" >&2; exit 2; }

# The queue cannot be exclusive, as it outlives the connection that declares it; so it is deleted by hand.
reply_queue=
delete() {
    [ -z "$reply_queue" ] || amqp-delete-queue --url="$url" --queue="$reply_queue" > /dev/null
    reply_queue=
}
trap delete EXIT

while IFS= read -r body; do
    reply_queue=$(amqp-declare-queue --url="$url" --queue=)
    printf %s "$body" |
        amqp-publish --url="$url" --routing-key="$request_queue" --reply-to="$reply_queue" \
            --content-type=application/json
    # Standard input is kept from it: the other requests are in there.
    if timeout 60 amqp-consume --url="$url" --queue="$reply_queue" --no-ack --count=1 cat < /dev/null; then
        echo
    else
        echo "! amqp-consume: status $?, which is 124 where no answer came in 60 s"
    fi
    delete
done
