package transaction

import "hereis/sipfront/transport"

// User is the transaction user above the layer: the proxy core. Its methods
// are called on the goroutine that read the message, in order per flow, and
// must not wait.
type User interface {
	// Request begins a server transaction. For an INVITE the layer sends 100
	// by itself if nothing was sent within 200 ms (17.2.1), for another request
	// after 3.5 s (RFC 4320 4.1); its user sends it no provisional response.
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
