package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config says where to listen and how much to take.
type Config struct {
	// UDP are the addresses to receive datagrams at. Port 0 lets the system
	// choose; Addrs then tells what it chose.
	UDP []netip.AddrPort
	// Sockets is how many sockets share each UDP address, each with a goroutine
	// of its own. 0 means one per core.
	Sockets int
	// ReadBuffer is the receive buffer asked of the system for each UDP socket, in
	// bytes; 0: the system's own choice. Without CAP_NET_ADMIN Linux gives no more
	// than net.core.rmem_max.
	ReadBuffer int
	// MaxFlows bounds the UDP flows that have an id.
	MaxFlows int
	// Limits bound one message.
	Limits Limits
	// Sources bound the requests of one sender.
	Sources Sources
	// TCP are the addresses to take connections at; port 0 as with UDP.
	TCP []netip.AddrPort
	// Streams bound connections.
	Streams Streams
	// Plain is shown every datagram before it is parsed. True: it has taken what
	// is in the message, which is the socket's with its Raw, and not its to keep.
	// Nil if everything is to be parsed.
	Plain func(*Message) bool
	// Company, if not nil, is told when datagrams begin to be handled that were read
	// at once, and when they have been, so that whatever else they lead to can leave
	// together.
	Company Company
	// OnClose is told when a connection has ended, by its own goroutine; it must
	// not wait. Nil if nobody asks.
	OnClose func(Flow)
}

// Company is told of the begin and the end of each batch of messages, of which
// there may be several at a time.
type Company interface {
	Begin()
	End()
}

// Streams bound connections, one and all of them.
type Streams struct {
	// Connections is the highest number open at a time, in both directions;
	// PerSource of those that one address opened. More are closed at once.
	Connections, PerSource int
	// Message is the largest message, in bytes.
	Message int
	// Queue is how many bytes may wait to be written before the peer counts as
	// gone and the connection is closed.
	Queue int
	// Idle closes a connection that brought nothing for so long, not even a
	// keep-alive (RFC 5626 4.4.1 has a ping at least every 120 s). Begun is how
	// long a message may take from its first byte to its last, Write how long a
	// write, Dial how long to connect.
	Idle, Begun, Write, Dial time.Duration
}

// DefaultStreams suit phones behind NATs.
func DefaultStreams() Streams {
	return Streams{
		Connections: 100_000, PerSource: 1_000, Message: 64 << 10, Queue: 256 << 10,
		Idle: 10 * time.Minute, Begun: 10 * time.Second, Write: 10 * time.Second, Dial: 4 * time.Second,
	}
}

func (s Streams) validate() error {
	switch {
	case s.Connections < 1 || s.PerSource < 1:
		return errors.New("Streams: Connections or PerSource not positive")
	case s.Message < 1300 || s.Queue < s.Message:
		return errors.New("Streams: Message below 1300 or above Queue")
	case s.Idle <= 0 || s.Begun <= 0 || s.Write <= 0 || s.Dial <= 0:
		return errors.New("Streams: a time is not positive")
	}
	return nil
}

// DefaultConfig listens nowhere.
func DefaultConfig() Config {
	return Config{ReadBuffer: 32 << 20, MaxFlows: 1 << 20, Limits: DefaultLimits(), Streams: DefaultStreams(), Sources: DefaultSources()}
}

// Validate names the first field that makes no sense.
func (c Config) Validate() error {
	switch {
	case len(c.UDP)+len(c.TCP) == 0:
		return errors.New("UDP, TCP: no address to listen at")
	case c.Sockets < 0:
		return errors.New("Sockets: negative")
	case c.ReadBuffer < 0:
		return errors.New("ReadBuffer: negative")
	case c.MaxFlows < 64:
		return errors.New("MaxFlows: below 64")
	case c.Limits.Datagram < 1300 || c.Limits.Datagram > 65535:
		return errors.New("Limits.Datagram: outside 1300 to 65535")
	case c.Limits.HeaderLine < 256 || c.Limits.Headers < 16 || c.Limits.Params < 8:
		return errors.New("Limits: too narrow for SIP")
	case c.Limits.Body < 0:
		return errors.New("Limits.Body: negative")
	case c.Sources.PerSecond < 0 || c.Sources.Answers < 0:
		return errors.New("Sources: negative")
	case c.Sources.PerSecond > 0 && (c.Sources.Burst < 1 || c.Sources.Table < 1):
		return errors.New("Sources: Burst or Table not positive")
	}
	for _, a := range c.UDP {
		if !a.Addr().IsValid() {
			return fmt.Errorf("UDP: address %q", a)
		}
	}
	if len(c.TCP) == 0 {
		return nil
	}
	for _, a := range c.TCP {
		if !a.Addr().IsValid() {
			return fmt.Errorf("TCP: address %q", a)
		}
	}
	return c.Streams.validate()
}
