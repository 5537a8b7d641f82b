package transport

import (
	"errors"
	"net/netip"

	"hereis/messages"
)

// Flow is the way to a peer: a connection, or a UDP 4-tuple (RFC 5626). It
// stays valid as a value after it has closed; Send then fails with ErrFlowClosed.
type Flow interface {
	// ID names the flow for as long as the cluster remembers it.
	ID() *messages.FlowID
	// Transport is "udp", "tcp", "tls", "ws" or "wss".
	Transport() string
	// Reliable: everything but UDP; timers A, E, G are not started, D, I, J, K are zero.
	Reliable() bool
	Local() netip.AddrPort
	Remote() netip.AddrPort
	// Send writes one whole message, or queues it in a bounded queue: it does not
	// wait for the peer. It does not keep b.
	Send(b []byte) error
}

// ErrFlowClosed is returned by Send on a flow whose connection has ended, and
// by Restore for a flow that cannot come back.
var ErrFlowClosed = errors.New("flow is closed")

// Handler takes in what the sockets bring. It is called by the socket's own
// goroutine and must not wait.
type Handler func(*Message)
