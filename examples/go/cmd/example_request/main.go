// A client of examples/example_broker.py: one notification, which nobody answers, and one call.
//
//	go run ./cmd/example_request
//
// The broker is amqp://localhost, or what the environment has as AMQP_URL.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"example.com/jsonrpcamqp"
)

func main() {
	log.SetFlags(0)
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	url := os.Getenv("AMQP_URL")
	if url == "" {
		url = "amqp://localhost"
	}
	client, err := jsonrpcamqp.New(url, jsonrpcamqp.Config{})
	if err != nil {
		return err
	}
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	line := map[string]string{"line": "the Go example_request asks for the time"}
	if err := client.Notify(ctx, "example", "log.write", line); err != nil {
		return err
	}
	var answer struct {
		Msg string `json:"msg"`
	}
	if err := client.Call(ctx, "example", "time.now", nil, &answer); err != nil {
		return err
	}
	fmt.Println(answer.Msg)
	return nil
}
