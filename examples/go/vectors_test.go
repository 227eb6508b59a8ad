package jsonrpcamqp

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const vectors = "../../tests/vectors"

// serverRules are not for clients.
var serverRules = map[string]bool{"keys.json reply": true, "answers.json publish": true}

var rules = map[string]func(t *testing.T, inputs, expected json.RawMessage){
	"keys.json service":      vectorService,
	"keys.json client":       vectorClient,
	"keys.json qid":          vectorQID,
	"keys.json keys":         vectorKeys,
	"keys.json milliseconds": vectorMilliseconds,
	"requests.json publish":  vectorPublish,
	"requests.json kind":     vectorKind,
	"answers.json response":  vectorResponse,
	"batches.json answer":    vectorBatchAnswer,
	"batches.json publish":   vectorBatchPublish,
}

func TestVectors(t *testing.T) {
	for _, file := range []string{"keys.json", "requests.json", "answers.json", "batches.json"} {
		data, err := os.ReadFile(filepath.Join(vectors, file))
		if err != nil {
			t.Fatal(err)
		}
		var table struct {
			Cases []struct {
				Name, Rule       string
				Inputs, Expected json.RawMessage
			}
		}
		decode(t, data, &table)
		for _, c := range table.Cases {
			rule := file + " " + c.Rule
			if serverRules[rule] {
				continue
			}
			check, ok := rules[rule]
			if !ok {
				t.Errorf("%s: no test for the rule of %q", rule, c.Name)
				continue
			}
			inputs, expected := c.Inputs, c.Expected
			t.Run(file+" "+c.Name, func(t *testing.T) { check(t, inputs, expected) })
		}
	}
}

func decode(t *testing.T, data []byte, value any) {
	t.Helper()
	if err := json.Unmarshal(data, value); err != nil {
		t.Fatal(err)
	}
}

// sameJSON compares numbers by their text, so that none is rounded.
func sameJSON(t *testing.T, what string, got, want []byte) {
	t.Helper()
	var values [2]any
	for i, text := range [][]byte{got, want} {
		decoder := json.NewDecoder(strings.NewReader(string(text)))
		decoder.UseNumber()
		if err := decoder.Decode(&values[i]); err != nil {
			t.Fatalf("%s: %q: %v", what, text, err)
		}
	}
	if !reflect.DeepEqual(values[0], values[1]) {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func vectorService(t *testing.T, inputs, expected json.RawMessage) {
	var in struct{ Service string }
	var want struct {
		Error          string
		RequestBinding string `json:"request_binding"`
	}
	decode(t, inputs, &in)
	decode(t, expected, &want)
	if err := checkService(in.Service); (err != nil) != (want.Error != "") {
		t.Fatalf("got %v, want %q", err, want.Error)
	}
	if want.Error == "" {
		same(t, "key", notificationKey(in.Service, "#"), want.RequestBinding)
	}
}

func vectorClient(t *testing.T, inputs, expected json.RawMessage) {
	var in struct{ User, Token string }
	var want struct{ Client, Error string }
	decode(t, inputs, &in)
	decode(t, expected, &want)
	got, err := clientWord(in.User, in.Token)
	if (err != nil) != (want.Error != "") {
		t.Fatalf("got %v, want %q", err, want.Error)
	}
	same(t, "client", got, want.Client)
}

func vectorQID(t *testing.T, inputs, expected json.RawMessage) {
	var in struct {
		ID string `json:"id_json"`
	}
	var want struct{ QID string }
	decode(t, inputs, &in)
	decode(t, expected, &want)
	same(t, "qid", qid(json.RawMessage(in.ID)), want.QID)
}

func vectorKeys(t *testing.T, inputs, expected json.RawMessage) {
	var in struct{ Service, Client, QID string }
	var want struct {
		Request      string `json:"request_key"`
		Notification string `json:"notification_key"`
		Binding      string `json:"reply_binding"`
		Response     string `json:"response_key"`
	}
	decode(t, inputs, &in)
	decode(t, expected, &want)
	same(t, "request_key", requestKey(in.Service, in.Client, in.QID), want.Request)
	same(t, "notification_key", notificationKey(in.Service, in.Client), want.Notification)
	same(t, "reply_binding", replyBinding(in.Service, in.Client), want.Binding)
	if !strings.HasPrefix(want.Response, strings.TrimSuffix(want.Binding, "#")) {
		t.Errorf("%s does not take %s", want.Binding, want.Response)
	}
}

// duration is for seconds that may be more than a time.Duration holds.
func duration(seconds float64) time.Duration {
	if seconds > math.MaxInt64/float64(time.Second) {
		return math.MaxInt64
	}
	return time.Duration(seconds * float64(time.Second))
}

func vectorMilliseconds(t *testing.T, inputs, expected json.RawMessage) {
	var in struct{ Seconds float64 }
	var want struct{ Milliseconds int64 }
	decode(t, inputs, &in)
	decode(t, expected, &want)
	same(t, "milliseconds", milliseconds(duration(in.Seconds)), want.Milliseconds)
}

type vectorSender struct {
	Exchange, Service, User, Token, Number string
	MessageID                              string `json:"message_id"`
	Reply                                  string
	Seconds                                *float64
}

// checkPublish compares what the client publishes for a body with what is expected of it.
func checkPublish(t *testing.T, in vectorSender, r *request, expected json.RawMessage) {
	var want struct {
		Error      string
		Exchange   string
		RoutingKey string `json:"routing_key"`
		Mandatory  bool
		Properties json.RawMessage
		Body       json.RawMessage
	}
	decode(t, expected, &want)

	c := newConnection(Config{Exchange: in.Exchange, DirectReplyTo: in.Reply == "direct"})
	c.user = in.User
	var err error
	if c.name, err = clientWord(in.User, in.Token); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if in.Seconds != nil {
		r.deadline = now.Add(duration(*in.Seconds))
	}
	r.key = in.Number
	if r.notification {
		r.key = in.MessageID
	}

	key, p, err := r.publishing(c, now)
	if (err != nil) != (want.Error != "") {
		t.Fatalf("got %v, want %q", err, want.Error)
	}
	if err != nil {
		return
	}
	same(t, "exchange", c.exchange, want.Exchange)
	same(t, "routing_key", key, want.RoutingKey)
	same(t, "mandatory", true, want.Mandatory)
	properties, err := json.Marshal(propertiesOf(p))
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, "properties", properties, want.Properties)
	if want.Body != nil {
		sameJSON(t, "body", p.Body, want.Body)
	}
}

// propertiesOf gives the properties that are set, by their names in the vectors.
func propertiesOf(p amqp.Publishing) map[string]any {
	properties := map[string]any{}
	for name, value := range map[string]any{
		"content_type": p.ContentType, "content_encoding": p.ContentEncoding, "delivery_mode": p.DeliveryMode,
		"priority": p.Priority, "correlation_id": p.CorrelationId, "reply_to": p.ReplyTo, "expiration": p.Expiration,
		"message_id": p.MessageId, "timestamp": p.Timestamp, "type": p.Type, "user_id": p.UserId, "app_id": p.AppId,
	} {
		if !reflect.ValueOf(value).IsZero() {
			properties[name] = value
		}
	}
	if p.Headers != nil {
		properties["headers"] = p.Headers
	}
	return properties
}

func vectorPublish(t *testing.T, inputs, expected json.RawMessage) {
	var in struct {
		vectorSender
		Kind, Method string
		Params, ID   json.RawMessage
		Persistent   *bool
		Headers      amqp.Table
	}
	decode(t, inputs, &in)
	var options []Option
	if in.Persistent != nil {
		options = append(options, Persistent(*in.Persistent))
	}
	if in.Headers != nil {
		options = append(options, Headers(in.Headers))
	}
	r := new(Client).newRequest(in.Service, in.Method, in.Kind == "notification", options)
	r.qid = qid(in.ID)
	var params any
	if in.Params != nil {
		params = in.Params
	}
	var err error
	if r.body, err = encode(in.Method, params, in.ID); err != nil {
		t.Fatal(err)
	}
	checkPublish(t, in.vectorSender, r, expected)
}

func vectorBatchPublish(t *testing.T, inputs, expected json.RawMessage) {
	var in struct {
		vectorSender
		Members json.RawMessage
	}
	decode(t, inputs, &in)
	notification, word := classify(in.Members)
	r := new(Client).newRequest(in.Service, "", notification, nil)
	r.qid, r.body = word, in.Members
	checkPublish(t, in.vectorSender, r, expected)
}

type vectorBody struct {
	Body string
	Hex  string `json:"body_hex"`
}

func (b vectorBody) bytes(t *testing.T) []byte {
	if b.Hex == "" {
		return []byte(b.Body)
	}
	body, err := hex.DecodeString(b.Hex)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func vectorKind(t *testing.T, inputs, expected json.RawMessage) {
	var in vectorBody
	var want struct{ Kind, QID string }
	decode(t, inputs, &in)
	decode(t, expected, &want)
	notification, word := classify(in.bytes(t))
	same(t, "notification", notification, want.Kind == "notification")
	same(t, "qid", word, want.QID)
}

// checkResponse compares a response that was read with the result, error or malformed that is expected.
func checkResponse(t *testing.T, result json.RawMessage, err error, expected json.RawMessage) {
	var want map[string]json.RawMessage
	decode(t, expected, &want)
	if wantResult, ok := want["result"]; ok {
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, "result", result, wantResult)
		return
	}
	if wantError, ok := want["error"]; ok {
		var remote *RemoteError
		if !errors.As(err, &remote) {
			t.Fatalf("got %v, want an error of the server", err)
		}
		got := map[string]any{"code": remote.Code, "message": remote.Message}
		if remote.Data != nil {
			got["data"] = remote.Data
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, "error", text, wantError)
		return
	}
	if !errors.Is(err, ErrMalformed) {
		t.Errorf("got %s and %v, want it to be refused", result, err)
	}
}

func vectorResponse(t *testing.T, inputs, expected json.RawMessage) {
	var in struct {
		vectorBody
		ID string `json:"id_json"`
	}
	decode(t, inputs, &in)
	result, err := readResponse(in.bytes(t), json.RawMessage(in.ID))
	checkResponse(t, result, err, expected)
}

func vectorBatchAnswer(t *testing.T, inputs, expected json.RawMessage) {
	var in struct {
		vectorBody
		IDs []json.RawMessage
	}
	var want struct {
		Answers   []json.RawMessage
		Malformed string
	}
	decode(t, inputs, &in)
	decode(t, expected, &want)
	responses, err := readBatch(in.bytes(t), in.IDs)
	if want.Malformed != "" {
		if !errors.Is(err, ErrMalformed) {
			t.Errorf("got %v and %v, want it to be refused", responses, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, answer := range want.Answers {
		checkResponse(t, responses[i].result, responses[i].err, answer)
	}
}

// TestIDs is about ids that the vectors do not have.
func TestIDs(t *testing.T) {
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"0", "-0", true},
		{"0", "0.000e9", true},
		{"10", "1e1", true},
		{"100", "1.00E+2", true},
		{"0.5", "5e-1", true},
		{"-1", "1", false},
		{"1", "10", false},
		{"10000000000000000000000", "1e22", true},
		{"9007199254740993", "9007199254740992", false},
		{"1e999999999999", "1e999999999999", true},
		{"1e999999999999", "1e999999999998", false},
		{"1e99999999999999999999", "1", false},
		{`"a"`, `"\u0061"`, true},
		{`"null"`, "null", false},
		{`"1e0"`, "1", false},
	} {
		if got := idKey(json.RawMessage(c.a)) == idKey(json.RawMessage(c.b)); got != c.same {
			t.Errorf("%s and %s are the same: got %v", c.a, c.b, got)
		}
	}
}

func TestTokens(t *testing.T) {
	seen := map[string]bool{}
	for i := 0; i < 1000; i++ {
		token := newToken()
		if len(token) != 12 || strings.Trim(token, "abcdefghijklmnopqrstuvwxyz0123456789") != "" || seen[token] {
			t.Fatalf("%q", token)
		}
		seen[token] = true
	}
}
