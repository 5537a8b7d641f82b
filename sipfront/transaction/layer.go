package transaction

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// Config bounds the layer.
type Config struct{}

// Layer matches messages to transactions.
type Layer struct{}

// New makes a layer.
func New(cfg Config, user User) *Layer { return &Layer{} }

// Run drives the timers until ctx ends.
func (l *Layer) Run(ctx context.Context) error { return nil }

// Receive takes in one message.
func (l *Layer) Receive(msg *transport.Message) {}

// Request begins a client transaction.
func (l *Layer) Request(req *sip.Request, flow transport.Flow, f Responses) (*Client, error) {
	return nil, nil
}

// Server is a server transaction.
type Server struct{}

func (s *Server) Message() *transport.Message             { return nil }
func (s *Server) Respond(res *sip.Response) error         { return nil }
func (s *Server) RespondRaw(status int, raw []byte) error { return nil }
func (s *Server) Context() context.Context                { return nil }

// Client is a client transaction.
type Client struct{}

func (c *Client) Cancel(reason string) {}
func (c *Client) Terminate()           {}
