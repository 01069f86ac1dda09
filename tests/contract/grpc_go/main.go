// A grpc-go client that runs the cases it is given, and says what it got: an implementation of
// gRPC that shares no line with the one the other tests speak through.
//
//	client HOST:PORT < cases.json
//
// Messages are bytes here; what they mean is the caller's business. All cases run at once, each
// on a stream of its own, over one connection.
package main

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const maxMessageBytes = 64 << 20

// testCase is one RPC: its messages, each followed by as many answers as are awaited after it.
type testCase struct {
	Path      string            `json:"path"`
	Metadata  map[string]string `json:"metadata"`
	TimeoutMs int               `json:"timeout_ms"`
	Messages  [][]byte          `json:"messages"`
	Awaits    []int             `json:"awaits"`
	HalfClose bool              `json:"half_close"`
}

// result is what came back. Code is a number of gRPC's.
type result struct {
	Answers [][]byte `json:"answers"`
	Code    int      `json:"code"`
}

// raw passes messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}
func (raw) Name() string { return "proto" }

func run(connection *grpc.ClientConn, each testCase) result {
	ctx, cancel := context.WithCancel(context.Background())
	if each.TimeoutMs > 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(each.TimeoutMs)*time.Millisecond)
	}
	defer cancel()
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(each.Metadata))
	found := result{Answers: [][]byte{}}
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, each.Path)
	for number := 0; err == nil && number < len(each.Messages); number++ {
		if err = stream.SendMsg(&each.Messages[number]); err != nil {
			break
		}
		for awaited := 0; err == nil && awaited < each.Awaits[number]; awaited++ {
			err = receive(stream, &found)
		}
	}
	if err == nil && each.HalfClose {
		err = stream.CloseSend()
	}
	if err == io.EOF { // sending on a stream that the server has ended: receiving says how
		err = nil
	}
	for err == nil {
		err = receive(stream, &found)
	}
	if err == io.EOF {
		err = nil
	}
	found.Code = int(status.Code(err))
	return found
}

func receive(stream grpc.ClientStream, found *result) error {
	var answer []byte
	if err := stream.RecvMsg(&answer); err != nil {
		return err
	}
	found.Answers = append(found.Answers, answer)
	return nil
}

func main() {
	var cases []testCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		log.Fatal(err)
	}
	connection, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}),
			grpc.MaxCallRecvMsgSize(maxMessageBytes), grpc.MaxCallSendMsgSize(maxMessageBytes)))
	if err != nil {
		log.Fatal(err)
	}
	results := make([]result, len(cases))
	var all sync.WaitGroup
	for number := range cases {
		all.Add(1)
		go func() {
			defer all.Done()
			results[number] = run(connection, cases[number])
		}()
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(results); err != nil {
		log.Fatal(err)
	}
}
