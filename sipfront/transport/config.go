package transport

import (
	"errors"
	"fmt"
	"net/netip"
)

// Config says where to listen and how much to take.
type Config struct {
	// UDP are the addresses to receive datagrams at. Port 0 lets the system
	// choose; Addrs then tells what it chose.
	UDP []netip.AddrPort
	// Sockets is how many sockets share each UDP address, each with a goroutine
	// of its own. 0 means one per core.
	Sockets int
	// ReadBuffer is the receive buffer asked of the system for each UDP socket, in bytes.
	ReadBuffer int
	// MaxFlows bounds the UDP flows that have an id.
	MaxFlows int
	// Limits bound one message.
	Limits Limits
}

// DefaultConfig listens nowhere.
func DefaultConfig() Config {
	return Config{ReadBuffer: 4 << 20, MaxFlows: 1 << 20, Limits: DefaultLimits()}
}

// Validate names the first field that makes no sense.
func (c Config) Validate() error {
	switch {
	case len(c.UDP) == 0:
		return errors.New("UDP: no address to listen at")
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
	}
	for _, a := range c.UDP {
		if !a.Addr().IsValid() {
			return fmt.Errorf("UDP: address %q", a)
		}
	}
	return nil
}
