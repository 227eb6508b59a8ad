package jsonrpcamqp

// These tests need a RabbitMQ at AMQP_URL and examples/conformance_service.py there; the README says how to start both.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// atOnce is well below the timeouts here, and well above what a busy machine needs.
const atOnce = 3 * time.Second

func brokerURL() string {
	if url, ok := os.LookupEnv("AMQP_URL"); ok {
		return url
	}
	return "amqp://localhost"
}

func conformance() string {
	if service, ok := os.LookupEnv("SERVICE"); ok {
		return service
	}
	return "conformance"
}

func TestMain(m *testing.M) {
	conn, err := amqp.Dial(brokerURL())
	if err != nil {
		fmt.Fprintf(os.Stderr, "no RabbitMQ at AMQP_URL (default amqp://localhost), which the tests need: %v\n", err)
		os.Exit(1)
	}
	conn.Close()
	os.Exit(m.Run())
}

func newClient(t *testing.T, url string, config Config) *Client {
	t.Helper()
	client, err := New(url, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// connectionOf gives the connection that a client has, once it is open.
func connectionOf(t *testing.T, client *Client) *connection {
	t.Helper()
	client.mu.Lock()
	conn := client.current
	client.mu.Unlock()
	select {
	case <-conn.opened:
	case <-time.After(atOnce):
		t.Fatal("it does not open")
	}
	return conn
}

// wantNothingKept looks for what is left of requests that have ended.
func wantNothingKept(t *testing.T, conn *connection) {
	t.Helper()
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if len(conn.flight) != 0 {
		t.Errorf("kept: %v", conn.flight)
	}
}

func within(t *testing.T, timeout time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	t.Cleanup(cancel)
	return ctx
}

// wantCallError checks how a request ended that has no answer.
func wantCallError(t *testing.T, err, want error, mayHaveRun bool) {
	t.Helper()
	var e *CallError
	if !errors.As(err, &e) || !errors.Is(err, want) || e.MayHaveRun != mayHaveRun {
		t.Errorf("got %v, want a CallError of %q with MayHaveRun %v", err, want, mayHaveRun)
	}
}

// broker opens an AMQP channel besides the client's, to play the server or an administrator.
func broker(t *testing.T) *amqp.Channel {
	t.Helper()
	conn, err := amqp.Dial(brokerURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}

// A fakeServer has the queue of a service that nobody else knows. What it does with the requests is up to the test.
type fakeServer struct {
	t        *testing.T
	ch       *amqp.Channel
	service  string
	requests <-chan amqp.Delivery
}

func newFakeServer(t *testing.T, queueArguments amqp.Table) *fakeServer {
	t.Helper()
	s := &fakeServer{t: t, ch: broker(t), service: "go-test-" + newToken()}
	if err := s.ch.ExchangeDeclare(defaultExchange, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	queue, err := s.ch.QueueDeclare("", false, true, true, false, queueArguments)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ch.QueueBind(queue.Name, s.service+".request.#", defaultExchange, false, nil); err != nil {
		t.Fatal(err)
	}
	if queueArguments == nil {
		if s.requests, err = s.ch.Consume(queue.Name, "", true, false, false, false, nil); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *fakeServer) request() amqp.Delivery {
	s.t.Helper()
	select {
	case request := <-s.requests:
		return request
	case <-time.After(atOnce):
		s.t.Fatal("no request came")
		panic("unreachable")
	}
}

func (s *fakeServer) answer(request amqp.Delivery, body string) {
	s.t.Helper()
	exchange, key := request.Exchange, strings.Replace(request.RoutingKey, ".request.", ".response.", 1)
	if request.ReplyTo != "" {
		exchange, key = "", request.ReplyTo
	}
	message := amqp.Publishing{CorrelationId: request.CorrelationId, Body: []byte(body)}
	if err := s.ch.Publish(exchange, key, false, false, message); err != nil {
		s.t.Fatal(err)
	}
}

// goCall calls in the background.
func goCall(ctx context.Context, client *Client, service, method string, params, result any) <-chan error {
	done := make(chan error, 1)
	go func() { done <- client.Call(ctx, service, method, params, result) }()
	return done
}

func wait(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(atOnce):
		t.Fatal("still not done")
		panic("unreachable")
	}
}

// A proxy stands between a client and the broker.
type proxy struct {
	url      string
	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
	gate     chan struct{} // closed: data pass
}

// newProxy takes TLS connections where it has a configuration for them.
func newProxy(t *testing.T, config *tls.Config) *proxy {
	t.Helper()
	target, err := amqp.ParseURI(brokerURL())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	parts, err := url.Parse(brokerURL())
	if err != nil {
		t.Fatal(err)
	}
	parts.Host = listener.Addr().String()
	if config != nil {
		parts.Scheme = "amqps"
		listener = tls.NewListener(listener, config)
	}
	p := &proxy{url: parts.String(), listener: listener, gate: make(chan struct{})}
	close(p.gate)
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		p.thaw()
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", net.JoinHostPort(target.Host, strconv.Itoa(target.Port)))
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, client, server)
			p.mu.Unlock()
			go p.forward(client, server)
			go p.forward(server, client)
		}
	}()
	return p
}

func (p *proxy) forward(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	data := make([]byte, 64<<10)
	for {
		n, err := from.Read(data)
		p.mu.Lock()
		gate := p.gate
		p.mu.Unlock()
		<-gate
		if _, failed := to.Write(data[:n]); err != nil || failed != nil {
			return
		}
	}
}

// cut resets all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		if conn, ok := conn.(*net.TCPConn); ok {
			conn.SetLinger(0)
		}
		conn.Close()
	}
	p.conns = nil
}

// freeze lets nothing pass any more, as a network does that is gone without a word.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gate = make(chan struct{})
}

func (p *proxy) thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

func TestCall(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]Config{"over the exchange": {}, "direct reply-to": {DirectReplyTo: true}} {
		client := newClient(t, brokerURL(), config)
		t.Run(name, func(t *testing.T) {
			for _, c := range []struct {
				method string
				params any
				want   string
			}{
				{"subtract", []int{42, 23}, "19"},
				{"subtract", map[string]int{"subtrahend": 23, "minuend": 42}, "19"},
				{"subtract", struct {
					Minuend    int `json:"minuend"`
					Subtrahend int `json:"subtrahend"`
				}{42, 23}, "19"},
				{"sum", []int{}, "0"},
				{"get_data", nil, `["hello", 5]`},
				{"get_data", []any(nil), `["hello", 5]`},
				{"update", []any{1, "2", nil}, "null"},
				{"echo", []string{"grüße, 世界 🐇 <&> \u2028 \x00 \"\\"}, `"grüße, 世界 🐇 <&> \u2028 \u0000 \"\\"`},
				{"echo", []json.RawMessage{json.RawMessage("18446744073709551617")}, "18446744073709551617"},
				{"echo", []any{map[string]any{"a": []any{nil, true, 1.5, "x"}}}, `{"a": [null, true, 1.5, "x"]}`},
			} {
				var result json.RawMessage
				if err := client.Call(within(t, 10*time.Second), conformance(), c.method, c.params, &result); err != nil {
					t.Error(err)
					continue
				}
				sameJSON(t, c.method, result, []byte(c.want))
			}
			if err := client.Call(context.Background(), conformance(), "get_data", nil, nil); err != nil {
				t.Errorf("a context without a deadline, and no place for the result: %v", err)
			}
		})
	}
}

func TestResultOfAnotherType(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	var number int
	err := client.Call(within(t, 10*time.Second), conformance(), "echo", []string{"x"}, &number)
	wantCallError(t, err, ErrResult, true)
}

func TestErrorsOfTheServer(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	for _, c := range []struct {
		method string
		params any
		code   int64
		data   string
	}{
		{"refuse", nil, 1, `{"when": "tomorrow"}`},
		{"absent", nil, -32601, ""},
		{"subtract", []int{1}, -32602, ""},
		{"fail", nil, -32603, ""},
	} {
		err := client.Call(within(t, 10*time.Second), conformance(), c.method, c.params, nil)
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Code != c.code || remote.Message == "" {
			t.Errorf("%s: got %v, want an error %d of the server", c.method, err, c.code)
			continue
		}
		if c.data != "" {
			same(t, "message", remote.Message, "not today")
			sameJSON(t, "data", remote.Data, []byte(c.data))
		}
		if strings.Contains(fmt.Sprint(err), "this text stays here") {
			t.Error(err)
		}
	}
}

// untilTold waits until the server was handed these by notify_hello: a confirmed notification runs a little later.
func untilTold(t *testing.T, client *Client, values ...string) {
	t.Helper()
	var told []any
	for start := time.Now(); time.Since(start) < 5*time.Second; time.Sleep(20 * time.Millisecond) {
		if err := client.Call(within(t, 10*time.Second), conformance(), "was_told", nil, &told); err != nil {
			t.Fatal(err)
		}
		missing := 0
		for _, value := range values {
			found := false
			for _, each := range told {
				found = found || each == value
			}
			if !found {
				missing++
			}
		}
		if missing == 0 {
			return
		}
	}
	t.Errorf("not all of %v were told", values)
}

func TestNotify(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	one, other := newToken(), newToken()
	if err := client.Notify(within(t, 10*time.Second), conformance(), "notify_hello", []string{one}); err != nil {
		t.Fatal(err)
	}
	err := client.Notify(within(t, 10*time.Second), conformance(), "notify_hello", []string{other}, Persistent(false))
	if err != nil {
		t.Fatal(err)
	}
	untilTold(t, client, one, other)

	var group sync.WaitGroup
	for i := 0; i < 200; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			if err := client.Notify(within(t, 10*time.Second), conformance(), "update", []int{1}); err != nil {
				t.Error(err)
			}
		}()
	}
	group.Wait()
	wantNothingKept(t, connectionOf(t, client))
}

func TestBatch(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	var sum, difference int
	one, other := newToken(), newToken()
	batch := []Member{
		{Method: "sum", Params: []int{1, 2, 4}, Result: &sum},
		{Method: "notify_hello", Params: []string{one}, Notification: true},
		{Method: "subtract", Params: map[string]int{"minuend": 42, "subtrahend": 23}, Result: &difference},
		{Method: "absent"},
		{Method: "echo", Params: []string{"x"}, Result: &difference},
	}
	if err := client.Batch(within(t, 10*time.Second), conformance(), batch); err != nil {
		t.Fatal(err)
	}
	same(t, "sum", sum, 7)
	same(t, "difference", difference, 19)
	for i := 0; i < 3; i++ {
		if batch[i].Err != nil {
			t.Error(batch[i].Err)
		}
	}
	var remote *RemoteError
	if !errors.As(batch[3].Err, &remote) || remote.Code != -32601 {
		t.Errorf("got %v", batch[3].Err)
	}
	wantCallError(t, batch[4].Err, ErrResult, true)

	notifications := []Member{
		{Method: "notify_hello", Params: []string{other}, Notification: true},
		{Method: "update", Notification: true},
	}
	if err := client.Batch(within(t, 10*time.Second), conformance(), notifications); err != nil {
		t.Fatal(err)
	}
	untilTold(t, client, one, other)
}

func TestBatchOverTheLimit(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	batch := make([]Member, 1001)
	for i := range batch {
		batch[i].Method = "get_data"
	}
	if err := client.Batch(within(t, 10*time.Second), conformance(), batch); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 1000} {
		var remote *RemoteError
		if !errors.As(batch[i].Err, &remote) || remote.Code != -32600 {
			t.Errorf("got %v", batch[i].Err)
		}
	}
}

func TestBatchAnswersInAnotherOrder(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	client := newClient(t, brokerURL(), Config{})
	var one, two string
	batch := []Member{
		{Method: "a", Result: &one},
		{Method: "b", Notification: true},
		{Method: "c", Result: &two},
		{Method: "d"},
	}
	done := make(chan error, 1)
	go func() { done <- client.Batch(within(t, 10*time.Second), server.service, batch) }()
	request := server.request()
	if !strings.HasSuffix(request.RoutingKey, "._") || request.DeliveryMode != amqp.Transient {
		t.Errorf("%s, %d", request.RoutingKey, request.DeliveryMode)
	}
	sameJSON(t, "body", request.Body, []byte(`[
		{"jsonrpc": "2.0", "method": "a", "id": 1},
		{"jsonrpc": "2.0", "method": "b"},
		{"jsonrpc": "2.0", "method": "c", "id": 3},
		{"jsonrpc": "2.0", "method": "d", "id": 4}
	]`))
	server.answer(request, `[
		{"jsonrpc": "2.0", "result": "three", "id": 3},
		{"jsonrpc": "2.0", "result": "one", "id": 1}
	]`)
	if err := wait(t, done); err != nil {
		t.Fatal(err)
	}
	same(t, "results", []string{one, two}, []string{"one", "three"})
	wantCallError(t, batch[3].Err, ErrMalformed, true)
}

func TestSend(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	for _, c := range []struct{ body, want string }{
		{
			`{"jsonrpc": "2.0", "method": "echo", "params": ["x"], "id": "a.b"}`,
			`{"jsonrpc": "2.0", "result": "x", "id": "a.b"}`,
		},
		{
			`[{"jsonrpc": "2.0", "method": "get_data", "id": null}]`,
			`[{"jsonrpc": "2.0", "result": ["hello", 5], "id": null}]`,
		},
	} {
		answer, err := client.Send(within(t, 10*time.Second), conformance(), []byte(c.body))
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, c.body, answer, []byte(c.want))
	}
	answer, err := client.Send(within(t, 10*time.Second), conformance(), []byte("no JSON"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = readResponse(answer, json.RawMessage("1"))
	var remote *RemoteError
	if !errors.As(err, &remote) || remote.Code != -32700 {
		t.Errorf("got %s", answer)
	}
	notification := []byte(`{"jsonrpc": "2.0", "method": "update"}`)
	if answer, err = client.Send(within(t, 10*time.Second), conformance(), notification); answer != nil || err != nil {
		t.Errorf("got %s, %v", answer, err)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	// The server then runs the method at once, and not at the end of its time.
	if err := client.Call(within(t, 10*time.Second), conformance(), "get_data", nil, nil); err != nil {
		t.Fatal(err)
	}
	conn := connectionOf(t, client)
	start := time.Now()
	err := client.Call(within(t, time.Second), conformance(), "sleep", []float64{1.2}, nil)
	wantCallError(t, err, context.DeadlineExceeded, true)
	if took := time.Since(start); took < time.Second || took > atOnce {
		t.Errorf("took %v", took)
	}
	time.Sleep(time.Until(start.Add(1500 * time.Millisecond))) // until after the answer
	var result string
	if err := client.Call(within(t, 10*time.Second), conformance(), "echo", []string{"next"}, &result); err != nil {
		t.Fatal(err)
	}
	same(t, "result", result, "next")
	if connectionOf(t, client) != conn {
		t.Error("it has connected again")
	}
	wantNothingKept(t, conn)
}

func TestLateAndStrangeAnswersAreDropped(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	for _, config := range []Config{{}, {DirectReplyTo: true}} {
		client := newClient(t, brokerURL(), config)
		ctx, giveUp := context.WithCancel(context.Background())
		late := goCall(ctx, client, server.service, "m", nil, nil)
		request := server.request()
		giveUp()
		wantCallError(t, wait(t, late), context.Canceled, true)

		var result string
		done := goCall(within(t, 10*time.Second), client, server.service, "m", nil, &result)
		next := server.request()
		server.answer(request, `{"jsonrpc": "2.0", "result": "late", "id": `+request.CorrelationId+`}`)
		server.answer(amqp.Delivery{Exchange: next.Exchange, RoutingKey: next.RoutingKey, ReplyTo: next.ReplyTo}, `{}`)
		strange := next
		strange.CorrelationId = "999999"
		server.answer(strange, `{}`)
		server.answer(next, `{"jsonrpc": "2.0", "result": "next", "id": `+next.CorrelationId+`}`)
		server.answer(next, `{"jsonrpc": "2.0", "result": "again", "id": `+next.CorrelationId+`}`)
		if err := wait(t, done); err != nil {
			t.Fatal(err)
		}
		same(t, "result", result, "next")
	}
}

func TestContexts(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	client := newClient(t, brokerURL(), Config{})

	ctx, cancel := context.WithCancel(context.Background())
	done := goCall(ctx, client, server.service, "m", nil, nil)
	server.request()
	cancel()
	wantCallError(t, wait(t, done), context.Canceled, true)

	// Nothing is sent that is over before it began.
	wantCallError(t, client.Call(ctx, server.service, "m", nil, nil), context.Canceled, false)
	wantCallError(t, client.Notify(ctx, server.service, "m", nil), context.Canceled, false)
	past, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	wantCallError(t, client.Call(past, server.service, "m", nil, nil), context.DeadlineExceeded, false)

	brief := newClient(t, brokerURL(), Config{Timeout: 2 * time.Second})
	done = goCall(context.Background(), brief, server.service, "m", nil, nil)
	server.request()
	wantCallError(t, wait(t, done), context.DeadlineExceeded, true)

	patient := newClient(t, brokerURL(), Config{Timeout: -1})
	ctx, cancel = context.WithCancel(context.Background())
	done = goCall(ctx, patient, server.service, "m", nil, nil)
	if request := server.request(); request.Expiration != "" || request.Headers[timeoutHeader] != nil {
		t.Errorf("it has a deadline: %s, %v", request.Expiration, request.Headers)
	}
	cancel()
	wantCallError(t, wait(t, done), context.Canceled, true)
	select {
	case request := <-server.requests:
		t.Errorf("sent: %s", request.Body)
	default:
	}
}

// TestWire is about what the vectors cannot show: what arrives.
func TestWire(t *testing.T) {
	t.Parallel()
	uri, err := amqp.ParseURI(brokerURL())
	if err != nil {
		t.Fatal(err)
	}
	server := newFakeServer(t, nil)
	client := newClient(t, brokerURL(), Config{})
	headers := amqp.Table{"trace": "x", timeoutHeader: "theirs"}
	call := make(chan error, 1)
	go func() {
		call <- client.Call(context.Background(), server.service, "m", []int{1}, nil, Headers(headers))
	}()
	request := server.request()
	conn := connectionOf(t, client)
	if conn.user != uri.Username || !strings.HasPrefix(conn.name, uri.Username+"-") {
		t.Errorf("%s, %s", conn.user, conn.name)
	}
	same(t, "routing key", request.RoutingKey, server.service+".request."+conn.name+"."+request.CorrelationId)
	same(t, "user_id", request.UserId, uri.Username)
	same(t, "content_type", request.ContentType, "application/json")
	same(t, "content_encoding", request.ContentEncoding, "")
	same(t, "delivery_mode", request.DeliveryMode, amqp.Transient)
	same(t, "reply_to", request.ReplyTo, "")
	same(t, "trace", request.Headers["trace"], "x")
	same(t, "the caller's table", headers[timeoutHeader], "theirs")
	timeout, ok := request.Headers[timeoutHeader].(int64)
	if !ok || timeout > 30000 || timeout < 20000 {
		t.Errorf("the timeout is %v, not nearly 30 s", request.Headers[timeoutHeader])
	}
	same(t, "expiration", request.Expiration, strconv.FormatInt(timeout, 10))
	id := request.CorrelationId
	sameJSON(t, "body", request.Body, []byte(`{"jsonrpc": "2.0", "method": "m", "params": [1], "id": `+id+`}`))
	server.answer(request, `{"jsonrpc": "2.0", "result": null, "id": `+id+`}`)
	if err := wait(t, call); err != nil {
		t.Fatal(err)
	}

	params := map[string]string{"line": "hello"}
	if err := client.Notify(within(t, 10*time.Second), server.service, "m", params); err != nil {
		t.Fatal(err)
	}
	request = server.request()
	same(t, "routing key", request.RoutingKey, server.service+".request."+conn.name)
	same(t, "user_id", request.UserId, uri.Username)
	same(t, "delivery_mode", request.DeliveryMode, amqp.Persistent)
	same(t, "correlation_id", request.CorrelationId, "")
	same(t, "expiration", request.Expiration, "")
	same(t, "headers", len(request.Headers), 0)
	if !strings.HasPrefix(request.MessageId, conn.name+"-") {
		t.Errorf("message_id: %s", request.MessageId)
	}
	sameJSON(t, "body", request.Body, []byte(`{"jsonrpc": "2.0", "method": "m", "params": {"line": "hello"}}`))
}

func TestUnroutable(t *testing.T) {
	t.Parallel()
	for _, config := range []Config{{}, {DirectReplyTo: true}} {
		client := newClient(t, brokerURL(), config)
		service := "go-test-" + newToken()
		start := time.Now()
		wantCallError(t, client.Call(context.Background(), service, "m", nil, nil), ErrUnroutable, false)
		batch := []Member{{Method: "m"}, {Method: "n", Notification: true}}
		wantCallError(t, client.Batch(context.Background(), service, batch), ErrUnroutable, false)
		wantCallError(t, batch[0].Err, ErrUnroutable, false)
		if took := time.Since(start); took > atOnce {
			t.Errorf("took %v", took)
		}

		// Each of many must see its own basic.return before its confirm, also when those who read both are held up.
		conn, done := connectionOf(t, client), make(chan struct{})
		go func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(time.Millisecond):
					conn.mu.Lock()
					time.Sleep(2 * time.Millisecond)
					conn.mu.Unlock()
				}
			}
		}()
		var group sync.WaitGroup
		for i := 0; i < 100; i++ {
			group.Add(2)
			go func() {
				defer group.Done()
				wantCallError(t, client.Notify(context.Background(), service, "m", nil), ErrUnroutable, false)
			}()
			go func() {
				defer group.Done()
				if err := client.Notify(context.Background(), conformance(), "update", nil); err != nil {
					t.Error(err)
				}
			}()
		}
		group.Wait()
		close(done)
	}
}

func TestFullQueue(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	client := newClient(t, brokerURL(), Config{})
	if err := client.Notify(within(t, 10*time.Second), server.service, "m", nil); err != nil {
		t.Fatal(err)
	}
	wantCallError(t, client.Notify(within(t, 10*time.Second), server.service, "m", nil), ErrRefused, false)
}

func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	client := newClient(t, brokerURL(), Config{})
	for _, body := range []string{
		"",
		"19",
		`{"jsonrpc": "2.0", "result": 1, "id": "%s"}`,
		`{"JSONRPC": "2.0", "result": 1, "id": %s}`,
	} {
		done := goCall(within(t, 10*time.Second), client, server.service, "m", nil, nil)
		request := server.request()
		server.answer(request, strings.Replace(body, "%s", request.CorrelationId, 1))
		wantCallError(t, wait(t, done), ErrMalformed, true)
	}
	batch := []Member{{Method: "m"}}
	done := make(chan error, 1)
	go func() { done <- client.Batch(within(t, 10*time.Second), server.service, batch) }()
	server.answer(server.request(), `{"jsonrpc": "2.0", "result": 1, "id": 1}`)
	wantCallError(t, wait(t, done), ErrMalformed, true)
	wantCallError(t, batch[0].Err, ErrMalformed, true)
}

func TestBigBody(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	text := strings.Repeat("0123456789abcde\n", 128<<10) // 2 MiB
	var result string
	if err := client.Call(within(t, 20*time.Second), conformance(), "echo", []string{text}, &result); err != nil {
		t.Fatal(err)
	}
	if result != text {
		t.Errorf("got %d bytes", len(result))
	}
}

func Test1000Calls(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	var group sync.WaitGroup
	for i := 0; i < 1000; i++ {
		i := i
		group.Add(1)
		go func() {
			defer group.Done()
			var result int
			err := client.Call(within(t, 20*time.Second), conformance(), "echo", []int{i}, &result)
			if err != nil || result != i {
				t.Errorf("%d: got %d, %v", i, result, err)
			}
		}()
	}
	group.Wait()
}

// Test1000CallsInFlight has none answered before all have come, and then answers them in a random order.
func Test1000CallsInFlight(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	client := newClient(t, brokerURL(), Config{})
	var group sync.WaitGroup
	for i := 0; i < 1000; i++ {
		i := i
		group.Add(1)
		go func() {
			defer group.Done()
			var result int
			err := client.Call(within(t, 20*time.Second), server.service, "m", []int{i}, &result)
			if err != nil || result != i {
				t.Errorf("%d: got %d, %v", i, result, err)
			}
		}()
	}
	var requests []amqp.Delivery
	for i := 0; i < 1000; i++ {
		requests = append(requests, server.request())
	}
	rand.Shuffle(len(requests), func(i, j int) { requests[i], requests[j] = requests[j], requests[i] })
	for _, request := range requests {
		var object struct {
			Params [1]int
			ID     json.RawMessage
		}
		decode(t, request.Body, &object)
		server.answer(request, fmt.Sprintf(`{"jsonrpc": "2.0", "result": %d, "id": %s}`, object.Params[0], object.ID))
	}
	group.Wait()
}

func TestSeveralServicesAndGoroutines(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	servers := []*fakeServer{newFakeServer(t, nil), newFakeServer(t, nil)}
	for _, server := range servers {
		server := server
		go func() {
			for request := range server.requests {
				body := fmt.Sprintf(`{"jsonrpc": "2.0", "result": %q, "id": %s}`, server.service, request.CorrelationId)
				server.answer(request, body)
			}
		}()
	}
	var group sync.WaitGroup
	for worker := 0; worker < 8; worker++ {
		for _, service := range []string{servers[0].service, servers[1].service} {
			service := service
			group.Add(1)
			go func() {
				defer group.Done()
				for i := 0; i < 20; i++ {
					var result string
					if err := client.Call(within(t, 10*time.Second), service, "m", nil, &result); err != nil || result != service {
						t.Errorf("got %s, %v", result, err)
					}
				}
			}()
		}
	}
	group.Wait()
}

// TestClose is not parallel: it counts goroutines.
func TestClose(t *testing.T) {
	server := newFakeServer(t, nil)
	before := runtime.NumGoroutine()
	client := newClient(t, brokerURL(), Config{})
	var calls []<-chan error
	for i := 0; i < 10; i++ {
		calls = append(calls, goCall(context.Background(), client, server.service, "m", nil, nil))
		server.request()
	}
	start := time.Now()
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for _, call := range calls {
		wantCallError(t, wait(t, call), ErrClosed, true)
	}
	wantCallError(t, client.Call(context.Background(), server.service, "m", nil, nil), ErrClosed, false)
	wantCallError(t, client.Notify(context.Background(), server.service, "m", nil), ErrClosed, false)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > atOnce {
		t.Errorf("took %v", took)
	}

	if err := newClient(t, brokerURL(), Config{}).Close(); err != nil {
		t.Errorf("never used: %v", err)
	}
	connecting := newClient(t, brokerURL(), Config{})
	call := goCall(context.Background(), connecting, server.service, "m", nil, nil)
	for connecting.last.Load() == 0 {
		runtime.Gosched()
	}
	connecting.Close()
	if err := wait(t, call); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}

	for deadline := time.Now().Add(atOnce); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("goroutines are left: %s", stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func TestConnectionLost(t *testing.T) {
	t.Parallel()
	server := newFakeServer(t, nil)
	network := newProxy(t, nil)
	client := newClient(t, network.url, Config{})
	for round := 0; round < 3; round++ {
		done := goCall(context.Background(), client, server.service, "m", nil, nil)
		server.request()
		lost := connectionOf(t, client)
		network.cut()
		wantCallError(t, wait(t, done), ErrConnection, true)

		var result string
		done = goCall(within(t, 10*time.Second), client, server.service, "m", nil, &result)
		request := server.request()
		server.answer(request, `{"jsonrpc": "2.0", "result": "again", "id": `+request.CorrelationId+`}`)
		if err := wait(t, done); err != nil {
			t.Fatal(err)
		}
		same(t, "result", result, "again")
		if conn := connectionOf(t, client); conn.name == lost.name || conn.queue == lost.queue {
			t.Errorf("used again: %s, %s", conn.name, conn.queue)
		}
		if err := client.Notify(within(t, 10*time.Second), server.service, "m", nil); err != nil {
			t.Fatal(err)
		}
		server.request()
	}
}

func TestNoBroker(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := newClient(t, "amqp://user:secret@"+listener.Addr().String(), Config{})

	// It takes connections and says nothing.
	wantCallError(t, client.Call(within(t, 200*time.Millisecond), "s", "m", nil, nil), context.DeadlineExceeded, false)
	client.Close()

	listener.Close()
	client = newClient(t, "amqp://user:secret@"+listener.Addr().String(), Config{})
	start := time.Now()
	wantCallError(t, client.Call(context.Background(), "s", "m", nil, nil), ErrConnection, false)
	wantCallError(t, client.Notify(context.Background(), "s", "m", nil), ErrConnection, false)
	if took := time.Since(start); took > atOnce {
		t.Errorf("took %v", took)
	}
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	parts, err := url.Parse(brokerURL())
	if err != nil {
		t.Fatal(err)
	}
	parts.User = url.UserPassword("nobody", "secret")
	err = newClient(t, parts.String(), Config{}).Call(within(t, 20*time.Second), "s", "m", nil, nil)
	wantCallError(t, err, ErrRefused, false)
	if strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}

// TestSilentNetwork has the deadlines of calls hold when nothing gets through any more, whatever the sockets do.
func TestSilentNetwork(t *testing.T) {
	t.Parallel()
	network := newProxy(t, nil)
	client := newClient(t, network.url, Config{})
	if err := client.Call(within(t, 10*time.Second), conformance(), "get_data", nil, nil); err != nil {
		t.Fatal(err)
	}
	network.freeze()
	text := strings.Repeat("x", 1<<20)
	var calls []<-chan error
	for i := 0; i < 8; i++ {
		calls = append(calls, goCall(within(t, time.Second), client, conformance(), "echo", []string{text}, nil))
	}
	notified := make(chan error, 1)
	go func() { notified <- client.Notify(within(t, time.Second), conformance(), "update", nil) }()
	waited := 0
	for _, call := range calls {
		err := wait(t, call)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if e, ok := err.(*CallError); ok && !e.MayHaveRun {
			waited++
		}
	}
	if waited == 0 {
		t.Error("no call waited to be sent: the buffers of the sockets were not full")
	}
	if err := wait(t, notified); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	start := time.Now()
	client.Close()
	if took := time.Since(start); took > closeTimeout+atOnce {
		t.Errorf("Close took %v", took)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	https := httptest.NewTLSServer(nil) // for its certificate
	defer https.Close()
	network := newProxy(t, &tls.Config{Certificates: https.TLS.Certificates})

	trusted := x509.NewCertPool()
	trusted.AddCert(https.Certificate())
	client := newClient(t, network.url, Config{TLS: &tls.Config{RootCAs: trusted}})
	if err := client.Call(within(t, 10*time.Second), conformance(), "get_data", nil, nil); err != nil {
		t.Error(err)
	}
	stranger := newClient(t, network.url, Config{})
	wantCallError(t, stranger.Call(within(t, 10*time.Second), conformance(), "get_data", nil, nil), ErrConnection, false)
}

func TestSocketDoesNotWaitForEver(t *testing.T) {
	t.Parallel()
	here, there := net.Pipe()
	defer there.Close()
	go io.CopyN(io.Discard, there, 1)
	_, err := socket{here, 50 * time.Millisecond}.Write([]byte("xy"))
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

// TestExchangeDeleted has the broker close the channels: what is in flight ends, and the next request works again.
func TestExchangeDeleted(t *testing.T) {
	t.Parallel()
	ch := broker(t)
	exchange := "go-test-" + newToken()
	t.Cleanup(func() { ch.ExchangeDelete(exchange, false, false) })
	client := newClient(t, brokerURL(), Config{Exchange: exchange})
	for _, send := range []func() error{
		func() error { return client.Call(within(t, 10*time.Second), "s", "m", nil, nil) },
		func() error { return client.Notify(within(t, 10*time.Second), "s", "m", nil) },
	} {
		wantCallError(t, send(), ErrUnroutable, false)
		if err := ch.ExchangeDelete(exchange, false, false); err != nil {
			t.Fatal(err)
		}
		wantCallError(t, send(), ErrRefused, true)
		wantCallError(t, send(), ErrUnroutable, false)
	}

	// The first call of a service fails when it binds.
	if err := ch.ExchangeDelete(exchange, false, false); err != nil {
		t.Fatal(err)
	}
	wantCallError(t, client.Call(within(t, 10*time.Second), "another", "m", nil, nil), ErrRefused, false)
	wantCallError(t, client.Call(within(t, 10*time.Second), "another", "m", nil, nil), ErrUnroutable, false)
}

func TestExchangeOfAnotherType(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{Exchange: "amq.fanout"})
	for i := 0; i < 2; i++ {
		wantCallError(t, client.Call(within(t, 10*time.Second), "s", "m", nil, nil), ErrRefused, false)
	}
}

func TestInvalid(t *testing.T) {
	t.Parallel()
	client := newClient(t, brokerURL(), Config{})
	for name, err := range map[string]error{
		"service":      client.Call(context.Background(), "a.request", "m", nil, nil),
		"number":       client.Call(context.Background(), conformance(), "echo", 1, nil),
		"text":         client.Notify(context.Background(), conformance(), "echo", "x"),
		"NaN":          client.Call(context.Background(), conformance(), "echo", []float64{math.NaN()}, nil),
		"headers":      client.Call(context.Background(), conformance(), "get_data", nil, nil, Headers(amqp.Table{"x": t})),
		"no member":    client.Batch(context.Background(), conformance(), nil),
		"wrong member": client.Batch(context.Background(), conformance(), []Member{{Method: "m"}, {Method: "m", Params: 1}}),
	} {
		t.Run(name, func(t *testing.T) { wantCallError(t, err, ErrInvalid, false) })
	}
	if client.current != nil { // No other goroutine is there that could set it.
		t.Error("it has connected")
	}
	_, err := New("amqp://user:sec/ret@host", Config{})
	if !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "sec") {
		t.Errorf("got %v", err)
	}
}
