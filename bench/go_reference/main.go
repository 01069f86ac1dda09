// The Go reference: what a minimal grpc-go sidecar costs that appends body chunks and answers.
//
// It is the yardstick of bench/transport and bench/paced, not a product: it keeps the bytes of each
// exchange until its response has ended, then drops them. Nothing is parsed, stored or delivered.
package main

import (
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	ext_proc "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const maxMessageBytes = 64 << 20

// sidecar answers every message as Envoy's STREAMED mode needs it, or none of them.
type sidecar struct {
	ext_proc.UnimplementedExternalProcessorServer
	answers bool
}

// Process appends until the response has ended; then the RPC is finished.
func (s *sidecar) Process(stream ext_proc.ExternalProcessor_ProcessServer) error {
	var request, response []byte
	for {
		message, err := stream.Recv()
		if err == io.EOF || status.Code(err) == codes.Canceled {
			return nil
		}
		if err != nil {
			return err
		}
		var answer *ext_proc.ProcessingResponse
		over := false
		switch part := message.Request.(type) {
		case *ext_proc.ProcessingRequest_RequestHeaders:
			answer = requestHeaders
		case *ext_proc.ProcessingRequest_RequestBody:
			request = append(request, part.RequestBody.Body...)
			answer = requestBody
		case *ext_proc.ProcessingRequest_RequestTrailers:
			answer = requestTrailers
		case *ext_proc.ProcessingRequest_ResponseHeaders:
			answer = responseHeaders
			over = part.ResponseHeaders.EndOfStream
		case *ext_proc.ProcessingRequest_ResponseBody:
			response = append(response, part.ResponseBody.Body...)
			answer = responseBody
			over = part.ResponseBody.EndOfStream
		case *ext_proc.ProcessingRequest_ResponseTrailers:
			answer = responseTrailers
			over = true
		}
		if s.answers && answer != nil {
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
		if over {
			return nil
		}
	}
}

// The answers never vary: "go on".
var (
	requestHeaders = &ext_proc.ProcessingResponse{Response: &ext_proc.ProcessingResponse_RequestHeaders{
		RequestHeaders: &ext_proc.HeadersResponse{}}}
	requestBody = &ext_proc.ProcessingResponse{Response: &ext_proc.ProcessingResponse_RequestBody{
		RequestBody: &ext_proc.BodyResponse{}}}
	requestTrailers = &ext_proc.ProcessingResponse{Response: &ext_proc.ProcessingResponse_RequestTrailers{
		RequestTrailers: &ext_proc.TrailersResponse{}}}
	responseHeaders = &ext_proc.ProcessingResponse{Response: &ext_proc.ProcessingResponse_ResponseHeaders{
		ResponseHeaders: &ext_proc.HeadersResponse{}}}
	responseBody = &ext_proc.ProcessingResponse{Response: &ext_proc.ProcessingResponse_ResponseBody{
		ResponseBody: &ext_proc.BodyResponse{}}}
	responseTrailers = &ext_proc.ProcessingResponse{Response: &ext_proc.ProcessingResponse_ResponseTrailers{
		ResponseTrailers: &ext_proc.TrailersResponse{}}}
)

func main() {
	mode := flag.String("mode", "streamed", "streamed: answer every message; observe: answer none")
	listen := flag.String("listen", "127.0.0.1:0", "address")
	flag.Parse()
	if *mode != "streamed" && *mode != "observe" {
		log.Fatalf("no such mode: %s", *mode)
	}
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxSendMsgSize(maxMessageBytes),
	)
	ext_proc.RegisterExternalProcessorServer(server, &sidecar{answers: *mode == "streamed"})
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		server.Stop()
	}()
	fmt.Printf("listening on %s\n", listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
