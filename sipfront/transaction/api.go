package transaction

import (
	"context"

	"github.com/emiago/sipgo/sip"

	"hereis/sipfront/transport"
)

// User is the transaction user above the layer: the proxy core. Its methods
// are called on the goroutine that read the message, in order per flow, and
// must not wait.
type User interface {
	// Request begins a server transaction. For an INVITE the layer sends 100
	// by itself if nothing was sent within 200 ms (17.2.1).
	Request(tx *Server)
	// Cancel says that a CANCEL matched tx, an INVITE without a final answer;
	// the layer has answered the CANCEL with 200 already. A CANCEL that
	// matches nothing is answered 481 by the layer.
	Cancel(tx *Server, cancel *transport.Message)
	// Ack brings an ACK that belongs to no server transaction of the layer:
	// one for a 2xx, to be routed on.
	Ack(msg *transport.Message)
	// Stray brings a response that matches no client transaction (for a proxy: a late
	// or retransmitted 2xx to be forwarded statelessly by its second Via, all else dropped).
	Stray(msg *transport.Message)
}

// Responses is what a client transaction tells its user: each provisional and
// final response, each further 2xx of an INVITE (RFC 6026), and at most one
// error: ErrTimeout (timer B or F), ErrTransport, ErrTerminated. Calls are one
// at a time; they come from the layer's goroutines and must not wait.
type Responses func(res *transport.Message, err error)

// The parts that the core uses; the types are in server.go, client.go and layer.go:
//
//	func New(cfg Config, user User) *Layer
//	func (l *Layer) Run(ctx context.Context) error          // timers; blocks
//	func (l *Layer) Receive(msg *transport.Message)          // a transport.Handler
//	func (l *Layer) Request(req *sip.Request, flow transport.Flow, f Responses) (*Client, error)
//	    // req has its top Via with a fresh branch already; it is serialised once, here
//
//	func (s *Server) Message() *transport.Message            // the request, never changed by the layer
//	func (s *Server) Respond(res *sip.Response) error        // serialises and sends by 18.2.2; later finals are discarded but for 2xx after 2xx
//	func (s *Server) RespondRaw(status int, raw []byte) error // the same for an answer built as bytes
//	func (s *Server) Context() context.Context               // ends with the transaction
//
//	func (c *Client) Cancel(reason string)                   // sends CANCEL, now or at the first provisional (9.1); reason is the Reason header's value or ""
//	func (c *Client) Terminate()                             // forget; no further calls of f
var _ context.Context
var _ *sip.Request
