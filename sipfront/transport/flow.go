package transport

import (
	"errors"
	"net/netip"
	"time"
	"unsafe"

	"github.com/emiago/sipgo/sip"

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

// Message is one SIP message as it came in; exactly one of Request and Response is set.
type Message struct {
	Request  *sip.Request
	Response *sip.Response
	// Raw is the message as received, owned by this value; it is not changed any
	// more once a handler has it. The parsed message shares it.
	Raw []byte
	// Flow is where it came from.
	Flow Flow
	// Reply is where RFC 3261 18.2.2 and RFC 3581 send the responses to a
	// request: Flow itself, or over UDP without rport the sent-by port of the
	// top Via. Nil means Flow.
	Reply Flow
	// At is when it came: to the socket, if that is known, or when it was read.
	At time.Time
	// Late: nothing has been read in time from its socket for a while. New work that
	// comes by it is better refused at once.
	Late bool
	// Spent is set by a Plain (Config) that has taken the message and keeps nothing
	// of it, not even Flow.
	Spent bool
}

// Text is Raw as a string that shares its memory.
func (m *Message) Text() string { return shared(m.Raw) }

// shared is b, which is not changed any more, as a string.
func shared(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Handler takes in what the sockets bring. It is called by the socket's own
// goroutine and must not wait.
type Handler func(*Message)
