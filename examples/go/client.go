// Package jsonrpcamqp calls JSON-RPC 2.0 methods over RabbitMQ, on one persistent connection.
//
// It follows docs/protocol.md of this repository, the wire contract, and uses that page's terms: read it for why
// things are as they are. tests/vectors has its rules as data, and vectors_test.go checks this file against them.
package jsonrpcamqp

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	defaultExchange = "jsonrpc"
	defaultTimeout  = 30 * time.Second

	// setupTimeout bounds each exchange with the broker that is no call: connecting, declaring, binding. A call waits
	// for these no longer than its own deadline.
	setupTimeout = 30 * time.Second
	// writeTimeout bounds one write to the socket, of one frame at most.
	writeTimeout = 30 * time.Second
	closeTimeout = 3 * time.Second

	directReplyTo = "amq.rabbitmq.reply-to"
	timeoutHeader = "timeout-ms"
)

// What a CallError is about: errors.Is(err, ErrUnroutable). A call that has no answer in time is
// context.DeadlineExceeded, and one that was given up is context.Canceled.
var (
	ErrInvalid    = errors.New("not valid")
	ErrClosed     = errors.New("the client is closed")
	ErrConnection = errors.New("no connection to the broker")
	ErrRefused    = errors.New("the broker refused")
	ErrUnroutable = errors.New("no queue takes the requests to this service: none of its servers was ever set up here")
	ErrMalformed  = errors.New("the answer is no JSON-RPC 2.0 response to this request")
	ErrResult     = errors.New("the result does not fit the Go type")
)

// A CallError says why a call or a notification has no result, where that is not an error that the server answered.
type CallError struct {
	Service string
	Method  string // empty for a batch, and for Send
	// MayHaveRun tells whether the method may have run, or may still run. Where it is false, the request can be
	// repeated safely.
	MayHaveRun bool
	Err        error
}

func (e *CallError) Error() string {
	what, ran := "request", "the method was not run"
	if e.Method != "" {
		what = e.Method
	}
	if e.MayHaveRun {
		ran = "the method may have run, or may still run"
	}
	return fmt.Sprintf("jsonrpcamqp: %s of service %s: %v; %s", what, e.Service, e.Err, ran)
}

func (e *CallError) Unwrap() error { return e.Err }

// A RemoteError is the error object of an answer. Its code tells whether the method has run.
type RemoteError struct {
	Code    int64
	Message string
	Data    json.RawMessage // nil where there is none
}

func (e *RemoteError) Error() string {
	return fmt.Sprintf("jsonrpcamqp: the server answered with error %d: %q", e.Code, e.Message)
}

// Config is how a Client differs from the default one, which the zero value is.
type Config struct {
	// Exchange is "jsonrpc" where it is empty.
	Exchange string
	// Timeout ends what is sent with a context that has no deadline: after 30 seconds where it is 0. Where it is
	// negative, such a request ends with its context or its connection.
	Timeout time.Duration
	// TLS is for amqps URLs.
	TLS *tls.Config
	// DirectReplyTo has answers come by amq.rabbitmq.reply-to instead of by a queue that is bound to the exchange.
	// Such a client needs no permission to configure or to read anything.
	DirectReplyTo bool
}

// A Client calls the methods of any number of services. It may be used by any number of goroutines at once.
//
// It connects when it is first used. After a loss, what is sent next connects anew.
type Client struct {
	url    string
	config Config
	last   atomic.Uint64 // number of the last request

	mu      sync.Mutex
	current *connection // nil before the first use
	closed  bool
}

// New makes a client of the broker at an AMQP URL. It does not connect yet.
func New(url string, config Config) (*Client, error) {
	if _, err := amqp.ParseURI(url); err != nil {
		// The error of a URL shows parts of the URL, the password among them.
		return nil, fmt.Errorf("jsonrpcamqp: %w: the AMQP URL (user name and password must be percent-encoded)", ErrInvalid)
	}
	if config.Exchange == "" {
		config.Exchange = defaultExchange
	}
	if config.Timeout == 0 {
		config.Timeout = defaultTimeout
	}
	return &Client{url: url, config: config}, nil
}

// Close fails what is in flight, and closes the connection.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	conn := c.current
	c.mu.Unlock()
	if conn != nil {
		conn.fail(ErrClosed)
		conn.hangUps.Wait()
	}
	return nil
}

// An Option changes how one request is sent.
type Option func(*request)

// Headers are sent along as AMQP headers.
func Headers(headers amqp.Table) Option {
	return func(r *request) { r.headers = headers }
}

// Persistent tells whether the broker is to keep the request on disk. By default it keeps notifications there.
func Persistent(persistent bool) Option {
	return func(r *request) { r.persistent = persistent }
}

// Call calls a method. Params are what encoding/json writes as an array or an object, or nil for none. The result is
// stored as json.Unmarshal does it: a *json.RawMessage has it as it came, nil ignores it.
//
// The error is a *RemoteError where the server answered with one, else a *CallError.
func (c *Client) Call(ctx context.Context, service, method string, params, result any, options ...Option) error {
	r := c.newRequest(service, method, false, options)
	id := json.RawMessage(r.key)
	r.qid = qid(id)
	var err error
	if r.body, err = encode(method, params, id); err != nil {
		return r.failed(err, false)
	}
	answer, err := c.send(ctx, r)
	if err != nil {
		return err
	}
	raw, err := readResponse(answer, id)
	return r.store(raw, err, result)
}

// Notify sends a notification. It returns once the broker has confirmed it: the request is in the queue of the
// service, and on disk.
func (c *Client) Notify(ctx context.Context, service, method string, params any, options ...Option) error {
	r := c.newRequest(service, method, true, options)
	var err error
	if r.body, err = encode(method, params, nil); err != nil {
		return r.failed(err, false)
	}
	_, err = c.send(ctx, r)
	return err
}

// A Member is a call or a notification of a batch. Params, Result and Err are as with Call.
type Member struct {
	Method       string
	Params       any
	Notification bool
	Result       any
	Err          error // set by Batch
}

// Batch sends the members as one message, and sets the Err of each. The error that it returns stands for the whole
// batch; it is nil when an answer came, or when there are only notifications and they were confirmed. A batch with a
// call in it is a call: its notifications are not confirmed.
func (c *Client) Batch(ctx context.Context, service string, members []Member, options ...Option) error {
	err := c.batch(ctx, service, members, options)
	if err != nil {
		for i := range members {
			members[i].Err = err
		}
	}
	return err
}

func (c *Client) batch(ctx context.Context, service string, members []Member, options []Option) error {
	var bodies []json.RawMessage
	var calls []*Member
	var ids []json.RawMessage
	for i := range members {
		member := &members[i]
		member.Err = nil
		var id json.RawMessage
		if !member.Notification {
			id = json.RawMessage(strconv.Itoa(i + 1))
			calls, ids = append(calls, member), append(ids, id)
		}
		body, err := encode(member.Method, member.Params, id)
		if err != nil {
			return &CallError{Service: service, Method: member.Method, Err: err}
		}
		bodies = append(bodies, body)
	}
	r := c.newRequest(service, "", len(calls) == 0, options)
	r.qid = noQID
	if len(members) == 0 {
		return r.failed(fmt.Errorf("%w: a batch has at least one member", ErrInvalid), false)
	}
	var err error
	if r.body, err = json.Marshal(bodies); err != nil {
		return r.failed(fmt.Errorf("%w: %v", ErrInvalid, err), false)
	}
	answer, err := c.send(ctx, r)
	if err != nil || r.notification {
		return err
	}
	responses, err := readBatch(answer, ids)
	if err != nil {
		return r.failed(err, true)
	}
	for i, call := range calls {
		member := request{service: service, method: call.Method}
		call.Err = member.store(responses[i].result, responses[i].err, call.Result)
	}
	return nil
}

// Send sends a body that is JSON-RPC already, whatever it holds, and gives the body of the answer as it came. It is
// for bridges. A notification, or a batch of nothing else, is confirmed as with Notify and has no answer.
func (c *Client) Send(ctx context.Context, service string, body []byte, options ...Option) ([]byte, error) {
	notification, word := classify(body)
	r := c.newRequest(service, "", notification, options)
	r.qid, r.body = word, body
	return c.send(ctx, r)
}

// send gives the body of the answer, or nil once a notification is confirmed.
func (c *Client) send(ctx context.Context, r *request) ([]byte, error) {
	if err := checkService(r.service); err != nil {
		return nil, r.failed(err, false)
	}
	if err := r.headers.Validate(); err != nil {
		return nil, r.failed(fmt.Errorf("%w: headers: %v", ErrInvalid, err), false)
	}
	if _, ok := ctx.Deadline(); !ok && c.config.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.config.Timeout)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, r.failed(err, false)
	}
	r.deadline, _ = ctx.Deadline()

	conn, err := c.connection(ctx)
	if err != nil {
		return nil, r.failed(err, false)
	}
	if !r.notification {
		if err := conn.bind(ctx, r.service); err != nil {
			return nil, r.failed(err, false)
		}
	}
	return conn.send(ctx, r)
}

// connection gives the current connection, or a new one where there is none any more.
func (c *Client) connection(ctx context.Context) (*connection, error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	if c.current == nil || c.current.loss() != nil {
		c.current = newConnection(c.config)
		go c.current.open(c.url, c.config.TLS.Clone())
	}
	conn := c.current
	c.mu.Unlock()

	select {
	case <-conn.opened:
	case <-conn.lost:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w while waiting for the connection", ctx.Err())
	}
	return conn, conn.loss()
}

// A request is a message to a service on its way.
type request struct {
	service      string
	method       string // for errors
	notification bool
	qid          string // of a call
	body         []byte
	headers      amqp.Table
	persistent   bool
	deadline     time.Time // zero: none
	// key is what the request is known by while it is in flight: correlation_id or message_id.
	key string

	sent    bool         // whether the broker may have it; guarded by the mutex of the connection
	outcome chan outcome // has room for the one outcome of each request, so that nobody waits to put it there
}

type outcome struct {
	body []byte
	err  error
}

func (c *Client) newRequest(service, method string, notification bool, options []Option) *request {
	r := &request{
		service:      service,
		method:       method,
		notification: notification,
		persistent:   notification,
		key:          strconv.FormatUint(c.last.Add(1), 10),
		outcome:      make(chan outcome, 1),
	}
	for _, option := range options {
		option(r)
	}
	return r
}

func (r *request) failed(err error, mayHaveRun bool) error {
	return &CallError{Service: r.service, Method: r.method, MayHaveRun: mayHaveRun, Err: err}
}

// store ends a call whose answer was read as this result or error.
func (r *request) store(raw json.RawMessage, err error, result any) error {
	if _, ok := err.(*RemoteError); ok {
		return err
	}
	if err == nil && result != nil {
		if err = json.Unmarshal(raw, result); err != nil {
			err = fmt.Errorf("%w: %v", ErrResult, err)
		}
	}
	if err != nil {
		return r.failed(err, true)
	}
	return nil
}

// publishing gives the routing key and the message to publish at this moment.
func (r *request) publishing(c *connection, now time.Time) (string, amqp.Publishing, error) {
	p := amqp.Publishing{ContentType: "application/json", DeliveryMode: amqp.Transient, UserId: c.user, Body: r.body}
	if r.persistent {
		p.DeliveryMode = amqp.Persistent
	}
	if len(r.headers) > 0 {
		p.Headers = amqp.Table{}
		for name, value := range r.headers {
			p.Headers[name] = value
		}
	}
	if r.notification {
		p.MessageId = r.key
		return notificationKey(r.service, c.name), p, nil
	}
	p.CorrelationId = r.key
	p.ReplyTo = c.replyTo
	if !r.deadline.IsZero() {
		left := r.deadline.Sub(now)
		if left <= 0 {
			return "", p, fmt.Errorf("%w while waiting to be sent", context.DeadlineExceeded)
		}
		if p.Headers == nil {
			p.Headers = amqp.Table{}
		}
		p.Headers[timeoutHeader] = milliseconds(left)
		p.Expiration = strconv.FormatInt(milliseconds(left), 10)
	}
	return requestKey(r.service, c.name, r.qid), p, nil
}

// A connection is one connection to the broker, from its opening to its loss. It is never opened again: tokens and
// exclusive queues must not be used twice, so a new connection takes its place.
type connection struct {
	exchange string
	replyTo  string // empty where answers come over the exchange

	opened chan struct{} // closed when it can be used; what follows is set by then
	user   string
	name   string // the client's word in routing keys
	queue  string // of the answers

	lost          chan struct{}  // closed when it cannot be used any more
	calls         chan *request  // to the goroutine that publishes calls
	notifications chan *request  // to the one that publishes notifications
	returnsRead   chan struct{}  // see awaitConfirm
	hangUps       sync.WaitGroup // for the end of the AMQP connection

	mu       sync.Mutex // never held while the AMQP library is called: its reader waits for those who want it
	err      error      // why it was lost
	amqp     *amqp.Connection
	flight   map[string]*request // by key
	bindings map[string]*binding // by service
}

type binding struct {
	done chan struct{}
	err  error
}

func newConnection(config Config) *connection {
	c := &connection{
		exchange:      config.Exchange,
		opened:        make(chan struct{}),
		lost:          make(chan struct{}),
		calls:         make(chan *request),
		notifications: make(chan *request),
		returnsRead:   make(chan struct{}),
		flight:        map[string]*request{},
		bindings:      map[string]*binding{},
	}
	if config.DirectReplyTo {
		c.replyTo = directReplyTo
	}
	return c
}

func (c *connection) open(url string, config *tls.Config) {
	defer c.guard("to set up the connection").Stop()
	if err := c.setUp(url, config); err != nil {
		c.fail(brokerError(err))
		return
	}
	close(c.opened)
}

// guard gives the connection up when its timer is not stopped in time. The AMQP library waits for the broker's replies
// without a limit, until the connection ends.
func (c *connection) guard(what string) *time.Timer {
	return time.AfterFunc(setupTimeout, func() {
		c.fail(fmt.Errorf("%w: the broker took more than %v %s", ErrConnection, setupTimeout, what))
	})
}

func (c *connection) setUp(url string, config *tls.Config) error {
	conn, err := amqp.DialConfig(url, amqp.Config{TLSClientConfig: config, Dial: dial})
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.amqp = conn
	err = c.err
	c.mu.Unlock()
	if err != nil { // The client was closed meanwhile.
		conn.CloseDeadline(time.Now().Add(closeTimeout))
		return err
	}

	c.user = userOf(conn.Config.SASL)
	if c.name, err = clientWord(c.user, newToken()); err != nil {
		return err
	}
	if err := c.declareExchange(); err != nil {
		return err
	}

	calls, err := conn.Channel()
	if err != nil {
		return err
	}
	c.queue = c.replyTo
	if c.replyTo == "" {
		queue, err := calls.QueueDeclare("", false, true, true, false, nil)
		if err != nil {
			return err
		}
		c.queue = queue.Name
	}
	answers, err := calls.Consume(c.queue, "answers", true, false, false, false, nil)
	if err != nil {
		return err
	}
	notifications, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := notifications.Confirm(false); err != nil {
		return err
	}

	// All of these end when the AMQP connection does.
	go c.readAnswers(answers)
	go c.readReturns(calls.NotifyReturn(make(chan amqp.Return)))
	go c.readReturnedNotifications(notifications.NotifyReturn(make(chan amqp.Return)))
	go c.watch(conn.NotifyClose(make(chan *amqp.Error, 1)))
	go c.watch(calls.NotifyClose(make(chan *amqp.Error, 1)))
	go c.watch(notifications.NotifyClose(make(chan *amqp.Error, 1)))
	go c.watchQueue(calls.NotifyCancel(make(chan string, 1)))
	go c.publishAll(calls, c.calls)
	go c.publishAll(notifications, c.notifications)
	return nil
}

// declareExchange declares it passively where the user has no right to configure it.
func (c *connection) declareExchange() error {
	err := c.onOwnChannel(func(ch *amqp.Channel) error {
		return ch.ExchangeDeclare(c.exchange, "topic", true, false, false, false, nil)
	})
	if replyCode(err) == amqp.AccessRefused {
		err = c.onOwnChannel(func(ch *amqp.Channel) error {
			return ch.ExchangeDeclarePassive(c.exchange, "topic", true, false, false, false, nil)
		})
	}
	return err
}

// bind has the answers of a service come to the queue. Whoever calls a service first binds; the others wait for it.
func (c *connection) bind(ctx context.Context, service string) error {
	if c.replyTo != "" {
		return nil
	}
	c.mu.Lock()
	b := c.bindings[service]
	if b == nil {
		b = &binding{done: make(chan struct{})}
		c.bindings[service] = b
		go func() {
			defer c.guard("to bind the queue of the answers").Stop()
			err := c.onOwnChannel(func(ch *amqp.Channel) error {
				return ch.QueueBind(c.queue, replyBinding(service, c.name), c.exchange, false, nil)
			})
			if err != nil {
				b.err = brokerError(err)
				c.mu.Lock()
				delete(c.bindings, service) // The next call tries again.
				c.mu.Unlock()
			}
			if replyCode(err) == amqp.NotFound {
				c.fail(b.err) // The exchange is gone. The next connection declares it again.
			}
			close(b.done)
		}()
	}
	c.mu.Unlock()

	select {
	case <-b.done:
		return b.err
	case <-c.lost:
		return c.loss()
	case <-ctx.Done():
		return fmt.Errorf("%w while waiting for the binding of the answers", ctx.Err())
	}
}

// onOwnChannel does what the broker may refuse: a refusal closes the channel, and takes nothing else along.
func (c *connection) onOwnChannel(do func(*amqp.Channel) error) error {
	ch, err := c.amqp.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	return do(ch)
}

// send puts a request in flight and waits for its outcome.
func (c *connection) send(ctx context.Context, r *request) ([]byte, error) {
	queue, awaited := c.calls, "answer"
	if r.notification {
		queue, awaited = c.notifications, "confirm"
		r.key = c.name + "-" + r.key
	}
	c.mu.Lock()
	if err := c.err; err != nil {
		c.mu.Unlock()
		return nil, r.failed(err, false)
	}
	c.flight[r.key] = r
	c.mu.Unlock()

	select {
	case queue <- r: // May take a while: RabbitMQ slows publishers down, or stops them, by not reading the socket.
	case <-c.lost:
	case <-ctx.Done():
	}
	select {
	case o := <-r.outcome:
		return o.body, o.err
	case <-ctx.Done():
	}
	if r := c.take(r.key); r != nil {
		return nil, r.failed(fmt.Errorf("%w while waiting for the %s", ctx.Err(), awaited), r.sent)
	}
	o := <-r.outcome // It came in the same moment.
	return o.body, o.err
}

// take ends the flight of a request: whoever gets it has to see to its outcome. Nil: it is not awaited (any more).
func (c *connection) take(key string) *request {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.flight[key]
	delete(c.flight, key)
	return r
}

func (c *connection) end(key string, body []byte) {
	if r := c.take(key); r != nil {
		r.outcome <- outcome{body: body}
	}
}

func (c *connection) endNotRun(key string, err error) {
	if r := c.take(key); r != nil {
		r.outcome <- outcome{err: r.failed(err, false)}
	}
}

// fail ends the connection and all that is in flight. Only the first error counts; the others come of it.
func (c *connection) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	close(c.lost)
	for key, r := range c.flight {
		delete(c.flight, key)
		r.outcome <- outcome{err: r.failed(err, r.sent)}
	}
	if conn := c.amqp; conn != nil {
		c.hangUps.Add(1)
		go func() {
			defer c.hangUps.Done()
			conn.CloseDeadline(time.Now().Add(closeTimeout))
		}()
	}
}

// loss tells why the connection was lost; nil while it is not.
func (c *connection) loss() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// publishAll is the one goroutine that uses an AMQP channel, as these are not made for several.
func (c *connection) publishAll(ch *amqp.Channel, requests <-chan *request) {
	for {
		select {
		case r := <-requests:
			c.publish(ch, r)
		case <-c.lost:
			return
		}
	}
}

func (c *connection) publish(ch *amqp.Channel, r *request) {
	key, publishing, err := r.publishing(c, time.Now())
	if err != nil {
		c.endNotRun(r.key, err)
		return
	}
	c.mu.Lock()
	awaited := c.flight[r.key] == r
	if awaited {
		r.sent = true
	}
	c.mu.Unlock()
	if !awaited {
		return
	}
	confirm, err := ch.PublishWithDeferredConfirm(c.exchange, key, true, false, publishing)
	if confirm != nil {
		go c.awaitConfirm(ch, r.key, confirm)
	}
	if err != nil && !errors.Is(err, amqp.ErrClosed) { // Where it was closed before, watch has the reason.
		c.fail(brokerError(err))
	}
}

func (c *connection) readAnswers(answers <-chan amqp.Delivery) {
	for answer := range answers {
		c.end(answer.CorrelationId, answer.Body)
	}
}

func (c *connection) readReturns(returns <-chan amqp.Return) {
	for returned := range returns {
		c.endNotRun(returned.CorrelationId, ErrUnroutable)
	}
}

// readReturnedNotifications reads a channel without a buffer, so that basic.ack comes after it has the basic.return.
func (c *connection) readReturnedNotifications(returns <-chan amqp.Return) {
	for {
		select {
		case returned, ok := <-returns:
			if !ok {
				return
			}
			c.endNotRun(returned.MessageId, ErrUnroutable)
		case <-c.returnsRead:
		}
	}
}

// awaitConfirm ends a notification.
func (c *connection) awaitConfirm(ch *amqp.Channel, key string, confirm *amqp.DeferredConfirmation) {
	<-confirm.Done()
	// A message that no queue takes comes back by basic.return, and is confirmed all the same. The return comes first,
	// but to another goroutine: wait until that is done with it.
	select {
	case c.returnsRead <- struct{}{}:
	case <-c.lost:
		return
	}
	if confirm.Acked() {
		c.end(key, nil)
	} else if !ch.IsClosed() { // On a closed channel nothing is confirmed; its watch fails what is in flight.
		c.endNotRun(key, fmt.Errorf("%w the notification: the queue is full, or has no leader (basic.nack)", ErrRefused))
	}
}

// watch gives the connection up when the broker closes it or one of its channels. Which of the requests on a channel
// the broker has refused, it does not tell.
func (c *connection) watch(closed <-chan *amqp.Error) {
	if err := <-closed; err != nil {
		c.fail(brokerError(err))
	} else {
		c.fail(brokerError(amqp.ErrClosed)) // By ourselves, or before we watched.
	}
}

func (c *connection) watchQueue(cancelled <-chan string) {
	if _, ok := <-cancelled; ok {
		c.fail(fmt.Errorf("%w: the queue of the answers was deleted", ErrConnection))
	}
}

// brokerError tells what the broker refused from what got lost.
func brokerError(err error) error {
	if errors.Is(err, ErrInvalid) {
		return err
	}
	switch replyCode(err) {
	case amqp.AccessRefused, amqp.NotFound, amqp.ResourceLocked, amqp.PreconditionFailed, amqp.NotAllowed:
		return fmt.Errorf("%w: %v", ErrRefused, err)
	}
	return fmt.Errorf("%w: %v", ErrConnection, err)
}

func replyCode(err error) int {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

// A socket does not wait for ever to be read at the other end. The AMQP library does, holding what it needs to notice
// that the connection is lost, once a host is gone without a word and the buffers are full.
type socket struct {
	net.Conn
	writeTimeout time.Duration
}

func (s socket) Write(data []byte) (int, error) {
	if err := s.SetWriteDeadline(time.Now().Add(s.writeTimeout)); err != nil {
		return 0, err
	}
	return s.Conn.Write(data)
}

func dial(network, address string) (net.Conn, error) {
	conn, err := amqp.DefaultDial(setupTimeout)(network, address)
	if err != nil {
		return nil, err
	}
	return socket{conn, writeTimeout}, nil
}

// userOf gives the name that the user has logged in with; empty where that is not known, as with certificates.
func userOf(sasl []amqp.Authentication) string {
	for _, auth := range sasl {
		switch auth := auth.(type) {
		case *amqp.PlainAuth:
			return auth.Username
		case *amqp.AMQPlainAuth:
			return auth.Username
		}
	}
	return ""
}

const (
	maxService = 80
	maxUser    = 64
	maxQID     = 64
	noQID      = "_"
)

var (
	plainWord   = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	jsonInteger = regexp.MustCompile(`^-?[0-9]+$`)
)

func checkService(service string) error {
	if len(service) > maxService {
		return fmt.Errorf("%w: the name of a service has at most %d bytes", ErrInvalid, maxService)
	}
	for i, word := range strings.Split(service, ".") {
		if !plainWord.MatchString(word) {
			return fmt.Errorf("%w: the name of a service is words of A-Z a-z 0-9 _ - with dots between", ErrInvalid)
		}
		if word == "request" || word == "response" || word == "control" || i == 0 && word == "amq" {
			return fmt.Errorf("%w: %q is reserved in the name of a service", ErrInvalid, word)
		}
	}
	return nil
}

// clientWord gives USER-TOKEN. Unlike in URLs, dots are encoded too: they would begin another word.
func clientWord(user, token string) (string, error) {
	if user == "" {
		return "_-" + token, nil
	}
	var encoded strings.Builder
	for _, b := range []byte(user) {
		if plainWord.Match([]byte{b}) || b == '~' {
			encoded.WriteByte(b)
		} else {
			fmt.Fprintf(&encoded, "%%%02X", b)
		}
	}
	if encoded.Len() > maxUser {
		return "", fmt.Errorf("%w: the user name has more than %d bytes when encoded", ErrInvalid, maxUser)
	}
	return encoded.String() + "-" + token, nil
}

func newToken() string {
	const characters = "abcdefghijklmnopqrstuvwxyz0123456789"
	token := make([]byte, 12)
	for i := range token {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(characters))))
		if err != nil {
			panic(err) // The system has no random numbers.
		}
		token[i] = characters[n.Int64()]
	}
	return string(token)
}

// qid gives the word of a routing key that stands for an id, given as JSON; empty where there is none.
func qid(id json.RawMessage) string {
	word := string(id)
	if text, ok := readString(id); ok && plainWord.MatchString(text) {
		word = text
	} else if !jsonInteger.MatchString(word) {
		return noQID
	}
	if len(word) > maxQID {
		return noQID
	}
	return word
}

func requestKey(service, client, qid string) string {
	return notificationKey(service, client) + "." + qid
}

func notificationKey(service, client string) string {
	return service + ".request." + client
}

func replyBinding(service, client string) string {
	return service + ".response." + client + ".#"
}

// milliseconds rounds up, and stays in the range that expiration and timeout-ms have: 0 would mean "drop at once".
func milliseconds(left time.Duration) int64 {
	ms := int64(left / time.Millisecond)
	if left%time.Millisecond > 0 {
		ms++
	}
	if ms < 1 {
		return 1
	}
	if ms > math.MaxUint32 {
		return math.MaxUint32
	}
	return ms
}

const version = "2.0"

// encode writes a request object, or that of a notification where there is no id.
func encode(method string, params any, id json.RawMessage) ([]byte, error) {
	raw, err := json.Marshal(params)
	if err != nil {
		return nil, fmt.Errorf("%w: params: %v", ErrInvalid, err)
	}
	switch raw[0] {
	case '[', '{':
	case 'n': // null, of nil and of nil slices and maps: there are none.
		raw = nil
	default:
		return nil, fmt.Errorf("%w: params are an array or an object in JSON, and %T is neither", ErrInvalid, params)
	}
	return json.Marshal(struct {
		Version string          `json:"jsonrpc"`
		Method  string          `json:"method"`
		Params  json.RawMessage `json:"params,omitempty"`
		ID      json.RawMessage `json:"id,omitempty"`
	}{version, method, raw, id})
}

// classify tells of any body whether it is a notification, and the qid if it is a call.
func classify(body []byte) (notification bool, word string) {
	if object, err := readObject(body); err == nil {
		if isNotification(object) {
			return true, ""
		}
		return false, qid(object["id"])
	}
	members, err := readArray(body)
	if err != nil || len(members) == 0 {
		return false, noQID
	}
	for _, member := range members {
		if object, err := readObject(member); err != nil || !isNotification(object) {
			return false, noQID
		}
	}
	return true, ""
}

func isNotification(object map[string]json.RawMessage) bool {
	_, hasID := object["id"]
	_, isMethod := readString(object["method"])
	params, hasParams := object["params"]
	return !hasID && isVersion2(object) && isMethod && (!hasParams || params[0] == '[' || params[0] == '{')
}

func isVersion2(object map[string]json.RawMessage) bool {
	got, ok := readString(object["jsonrpc"])
	return ok && got == version
}

type response struct {
	result json.RawMessage
	err    error // a *RemoteError, or an ErrMalformed
}

// readResponse reads the answer to a call that had this id.
func readResponse(body []byte, id json.RawMessage) (json.RawMessage, error) {
	object, err := readObject(body)
	if err != nil {
		return nil, err
	}
	result, err := readMembers(object)
	if errors.Is(err, ErrMalformed) {
		return nil, err
	}
	_, isError := err.(*RemoteError)
	if key := idKey(object["id"]); key != idKey(id) && !(isError && key == "null") {
		return nil, fmt.Errorf("%w: it has another id", ErrMalformed)
	}
	return result, err
}

// readBatch reads the answer to a batch whose calls had these ids, in their order.
func readBatch(body []byte, ids []json.RawMessage) ([]response, error) {
	responses := make([]response, len(ids))
	if object, err := readObject(body); err == nil {
		_, err := readMembers(object)
		if err == nil {
			err = fmt.Errorf("%w: a single result for a batch", ErrMalformed)
		}
		if errors.Is(err, ErrMalformed) {
			return nil, err
		}
		for i := range responses {
			responses[i].err = err
		}
		return responses, nil
	}

	members, err := readArray(body)
	if err != nil {
		return nil, err
	}
	byID := map[string][]map[string]json.RawMessage{}
	for _, member := range members {
		if object, err := readObject(member); err == nil {
			key := idKey(object["id"])
			byID[key] = append(byID[key], object)
		}
	}
	for i, id := range ids {
		key := idKey(id)
		if len(byID[key]) == 0 {
			responses[i].err = fmt.Errorf("%w: the batch has no member for it", ErrMalformed)
			continue
		}
		responses[i].result, responses[i].err = readMembers(byID[key][0])
		byID[key] = byID[key][1:]
	}
	return responses, nil
}

// readMembers reads all of a response but its id.
func readMembers(object map[string]json.RawMessage) (json.RawMessage, error) {
	result, hasResult := object["result"]
	rawError, hasError := object["error"]
	_, hasID := object["id"]
	switch {
	case !isVersion2(object):
		return nil, fmt.Errorf(`%w: jsonrpc is not "2.0"`, ErrMalformed)
	case hasResult == hasError:
		return nil, fmt.Errorf("%w: it needs exactly one of result and error", ErrMalformed)
	case !hasID:
		return nil, fmt.Errorf("%w: it has no id", ErrMalformed)
	case hasResult:
		return result, nil
	}
	members, err := readObject(rawError)
	if err != nil {
		return nil, fmt.Errorf("%w: error is no object", ErrMalformed)
	}
	code, err := strconv.ParseInt(string(members["code"]), 10, 64)
	if err != nil {
		return nil, fmt.Errorf("%w: the code of the error is no integer of 64 bits", ErrMalformed)
	}
	message, ok := readString(members["message"])
	if !ok {
		return nil, fmt.Errorf("%w: the message of the error is no string", ErrMalformed)
	}
	return nil, &RemoteError{Code: code, Message: message, Data: members["data"]}
}

// idKey gives ids that are the same one text: 1 and 1.0 are, 1 and "1" are not. It is empty for what can be no id.
func idKey(id json.RawMessage) string {
	if text, ok := readString(id); ok {
		return `"` + text
	}
	if len(id) == 0 || id[0] != '-' && (id[0] < '0' || id[0] > '9') {
		if string(id) == "null" {
			return "null"
		}
		return ""
	}

	// A number becomes digits without zeros at either end, and an exponent. Go's own number types either lose digits,
	// or can be made to fill the memory with an exponent.
	mantissa, exponent, hasExponent := strings.Cut(strings.ToLower(string(id)), "e")
	power := 0
	if hasExponent {
		var err error
		if power, err = strconv.Atoi(exponent); err != nil {
			return string(id)
		}
	}
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	if digits == "" {
		return "0"
	}
	power += len(digits) - len(strings.TrimRight(digits, "0")) - len(fraction)
	digits = strings.TrimRight(digits, "0")
	if id[0] == '-' {
		digits = "-" + digits
	}
	return digits + "e" + strconv.Itoa(power)
}

// maxDepth is how many arrays and objects may be in one another. Our servers have the same limit.
const maxDepth = 100

// readObject reads a JSON object into its members. Go's structs would not do: they take "ID" for "id".
func readObject(body []byte) (map[string]json.RawMessage, error) {
	var object map[string]json.RawMessage
	if err := readJSON(body, &object); err != nil || object == nil {
		return nil, fmt.Errorf("%w: it is no JSON object", ErrMalformed)
	}
	return object, nil
}

func readArray(body []byte) ([]json.RawMessage, error) {
	var array []json.RawMessage
	if err := readJSON(body, &array); err != nil || array == nil {
		return nil, fmt.Errorf("%w: it is no JSON array or object", ErrMalformed)
	}
	return array, nil
}

func readString(raw json.RawMessage) (text string, ok bool) {
	ok = len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &text) == nil
	return text, ok
}

// readJSON is stricter than json.Unmarshal, which takes bytes that are no UTF-8 for U+FFFD.
func readJSON(body []byte, value any) error {
	if !utf8.Valid(body) {
		return errors.New("no UTF-8")
	}
	if depth(body) > maxDepth {
		return errors.New("nested too deep")
	}
	return json.Unmarshal(body, value)
}

func depth(body []byte) int {
	deepest, level, inString := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch b := body[i]; {
		case inString && b == '\\':
			i++
		case b == '"':
			inString = !inString
		case inString:
		case b == '[' || b == '{':
			if level++; level > deepest {
				deepest = level
			}
		case b == ']' || b == '}':
			level--
		}
	}
	return deepest
}
