package transport

import (
	"sync"
	"sync/atomic"
)

// Stats counts what passed since the start. All but Flows only grow.
type Stats struct {
	MessagesIn, MessagesOut uint64
	BytesIn, BytesOut       uint64
	// KeepAlives counts CRLF pings and STUN binding requests that were answered.
	KeepAlives uint64
	// Refused counts malformed requests that were answered, Dropped messages
	// that were not.
	Refused, Dropped uint64
	// SendErrors counts messages that the operating system did not take.
	SendErrors uint64
	// Overflowed counts datagrams that were lost as nobody read them in time and
	// their socket had no room (Linux; 32 bits for each socket).
	Overflowed uint64
	// Malformed counts refused and dropped messages by reason.
	Malformed map[string]uint64
	// Flows is the number of flows that have an id now; Evicted counts UDP flows
	// that gave way to others when the table was full.
	Flows int
	// Limited counts requests of a source above its bound that were answered 503,
	// LimitedDropped those that were not answered.
	Limited, LimitedDropped uint64
	// Sources is how many sources are remembered.
	Sources int
	// ConnectionsRefused counts connections closed at once, for there were too
	// many, of all or of one source.
	ConnectionsRefused uint64
	// Connections is how many are open now, those that are being opened among them.
	Connections int
	Evicted     uint64
}

type counters struct {
	messagesIn, messagesOut, bytesIn, bytesOut atomic.Uint64
	keepAlives, refused, dropped, sendErrors   atomic.Uint64
	evicted, limited, limitedDropped           atomic.Uint64
	connectionsRefused                         atomic.Uint64

	mu        sync.Mutex
	malformed map[string]uint64 // keys are the constants given to bad: bounded
}

func (c *counters) refuse(reason string) {
	c.mu.Lock()
	c.malformed[reason]++
	c.mu.Unlock()
}

func (c *counters) snapshot() Stats {
	s := Stats{
		MessagesIn: c.messagesIn.Load(), MessagesOut: c.messagesOut.Load(),
		BytesIn: c.bytesIn.Load(), BytesOut: c.bytesOut.Load(),
		KeepAlives: c.keepAlives.Load(), Refused: c.refused.Load(), Dropped: c.dropped.Load(),
		SendErrors: c.sendErrors.Load(), Evicted: c.evicted.Load(),
		Limited: c.limited.Load(), LimitedDropped: c.limitedDropped.Load(),
		ConnectionsRefused: c.connectionsRefused.Load(),
		Malformed:          make(map[string]uint64),
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, v := range c.malformed {
		s.Malformed[k] = v
	}
	return s
}
