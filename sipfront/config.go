package sipfront

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"hereis/actors"
	"hereis/sipfront/credentials"
)

// Address is where peers reach this node with SIP: what stands in its Via and
// Record-Route.
type Address struct {
	// Transport is "udp", "tcp", "tls", "ws" or "wss".
	Transport string
	Addr      netip.AddrPort
}

// Config is what the core needs to know of its node.
type Config struct {
	// Domains are served here: their users register and are called.
	Domains *actors.Domains
	// Addresses are advertised, one or more for each transport, in order of preference.
	Addresses []Address
	// RecordRoute is the host, or host:port, in our Record-Route; empty: the
	// advertised address of the flow. One that leads to several nodes lets the
	// requests of a dialog survive the node that it began at.
	RecordRoute string
	// Ports are the SIP ports of our nodes besides those of Addresses: a URI of
	// a served domain is ours with no port or with one of them.
	Ports []uint16
	// MaxForwards is written into requests that have none (RFC 3261 16.6 step 3).
	MaxForwards int
	// TimerC bounds the ringing of one branch; it begins again at each
	// provisional answer (RFC 3261 16.8). More than 3 minutes.
	TimerC time.Duration
	// MaxBranches is the number of branches that one request may have in all.
	MaxBranches int
	// RingTimeout bounds how long the devices of one q ring while others wait
	// with a lower one; the last of them ring until TimerC.
	RingTimeout time.Duration
	// MaxBreadth bounds the branches of a request that are open at a time, here
	// and at all proxies behind (RFC 5393 5.3.3); a request that brings a lower
	// Max-Breadth keeps to that.
	MaxBreadth int
	// StrictPath: a REGISTER with a Path whose device does not support it is 420;
	// else the Path is kept and not mentioned. RFC 3327 5.3 leaves both open.
	StrictPath bool
	// Recurse: the Contacts of a 300, 301 or 302 are called by this node instead
	// of being passed on (RFC 3261 16.7 step 4), MaxRedirects for one request.
	Recurse      bool
	MaxRedirects int
	// NodeHop is how long a node of ours may take to answer an INVITE with 100
	// before its branch counts as 430 (CONSISTENCY rule 17). NodeHopOther is the
	// same for the first answer to any other request; a node that has none to
	// pass on sends 100 after 3.5 s (RFC 4320 4.1).
	NodeHop, NodeHopOther time.Duration
	// LookupTimeout bounds one question to the cluster.
	LookupTimeout time.Duration
	// MaxLookups is the number of questions under way at a time; above it
	// requests are answered 503 with Retry-After.
	MaxLookups int
	// RetryAfter, in seconds, goes with each 503 that has no better value.
	RetryAfter uint32
	// Digest is the order of the challenges, the preferred algorithm first (RFC
	// 8760 2.4); of these, those are offered that the users have.
	Digest []credentials.Algorithm
	// NonceLife is how long a nonce is good; then clients are told that it is
	// stale, and come again with a new one.
	NonceLife time.Duration
	// MaxNonces is the number of nonces whose use is remembered here, about 200
	// bytes each; above it, the oldest are stale before their time.
	MaxNonces int
	// Trunks are peers that are trusted by their address, Relays foreign domains
	// that users of ours, and trunks, may call. All else that is foreign is refused.
	Trunks []Trunk
	Relays []Relay
	// MaxPublication is the largest body of a PUBLISH in bytes; above it: 413. It
	// travels between nodes with all else that is known of the user.
	MaxPublication int
	// SubscribeDefault, SubscribeMin and SubscribeMax are the intervals of a
	// subscription (RFC 6665 4.2.1.1); one between zero and the least is answered 423.
	SubscribeDefault, SubscribeMin, SubscribeMax time.Duration
	// MaxSubscriptions bounds those that this node serves, above it 503;
	// MaxWatchers those to one user, above it 403.
	MaxSubscriptions, MaxWatchers int
	// DialogEvents: the calls that enter by this node are told of in the event
	// package "dialog"; MaxDialogs bounds those that are followed at a time.
	DialogEvents bool
	MaxDialogs   int
	// MaxListMembers bounds the members of a resource list; above it 403.
	MaxListMembers int
	// MaxNotifies bounds the NOTIFYs without an answer; others wait.
	MaxNotifies int
	// NotifyInterval is the shortest time between two NOTIFYs of a subscription,
	// unless its watcher asks for a longer one (RFC 6446). What changes meanwhile
	// is told at its end.
	NotifyInterval time.Duration
	// MessageTTL is how long a message is kept at most for a user who is offline,
	// if Parts.Mailbox is there; MaxMessageSize, in bytes, the largest body that is
	// kept; MaxStoredMessages how many this node keeps.
	MessageTTL        time.Duration
	MaxMessageSize    int
	MaxStoredMessages int
	// MessageWait is how long devices may be silent before a message is kept.
	MessageWait time.Duration
	// ServerHeader is the Server header of our own answers; empty for none.
	ServerHeader string
}

// DefaultConfig has everything but domains and addresses.
func DefaultConfig() Config {
	return Config{
		MaxForwards:   70,
		TimerC:        200 * time.Second,
		MaxBranches:   32,
		RingTimeout:   20 * time.Second,
		MaxBreadth:    60,
		MaxRedirects:  5,
		NodeHop:       500 * time.Millisecond,
		NodeHopOther:  4 * time.Second,
		LookupTimeout: 2 * time.Second,
		MaxLookups:    4096,
		RetryAfter:    2,
		Digest:        []credentials.Algorithm{credentials.SHA256, credentials.SHA512256, credentials.MD5},
		NonceLife:     10 * time.Minute,
		MaxNonces:     1 << 17,

		MaxPublication:    4 << 10,
		SubscribeDefault:  time.Hour,
		SubscribeMin:      time.Minute,
		SubscribeMax:      2 * time.Hour,
		MaxSubscriptions:  200_000,
		MaxWatchers:       20_000,
		MaxListMembers:    100,
		MaxDialogs:        50_000,
		MaxNotifies:       1024,
		NotifyInterval:    time.Second,
		MessageTTL:        24 * time.Hour,
		MaxMessageSize:    8192,
		MaxStoredMessages: 10_000,
		MessageWait:       8 * time.Second,
	}
}

// Validate names the first field that cannot work.
func (c *Config) Validate() error {
	switch {
	case c.Domains == nil:
		return errors.New("Domains: missing")
	case len(c.Addresses) == 0:
		return errors.New("Addresses: at least one is needed")
	case !ValidRecordRoute(c.RecordRoute):
		return fmt.Errorf("RecordRoute: %q is not HOST or HOST:PORT", c.RecordRoute)
	case c.MaxForwards < 1 || c.MaxForwards > 255:
		return fmt.Errorf("MaxForwards: %d is not in 1..255", c.MaxForwards)
	case c.TimerC <= 3*time.Minute:
		return fmt.Errorf("TimerC: %v is not more than 3m", c.TimerC)
	case c.MaxBranches < 1:
		return fmt.Errorf("MaxBranches: %d is less than 1", c.MaxBranches)
	case c.RingTimeout <= 0:
		return fmt.Errorf("RingTimeout: %v is not positive", c.RingTimeout)
	case c.MaxBreadth < 1:
		return fmt.Errorf("MaxBreadth: %d is less than 1", c.MaxBreadth)
	case c.MaxRedirects < 0:
		return fmt.Errorf("MaxRedirects: %d is negative", c.MaxRedirects)
	case c.NodeHop <= 0:
		return fmt.Errorf("NodeHop: %v is not positive", c.NodeHop)
	case c.NodeHopOther <= 0:
		return fmt.Errorf("NodeHopOther: %v is not positive", c.NodeHopOther)
	case c.LookupTimeout <= 0:
		return fmt.Errorf("LookupTimeout: %v is not positive", c.LookupTimeout)
	case len(c.Digest) == 0:
		return errors.New("Digest: at least one algorithm is needed")
	case c.NonceLife < time.Second:
		return fmt.Errorf("NonceLife: %v is less than 1s", c.NonceLife)
	case c.MaxNonces < 1:
		return fmt.Errorf("MaxNonces: %d is less than 1", c.MaxNonces)
	case c.MaxPublication < 1:
		return fmt.Errorf("MaxPublication: %d is less than 1", c.MaxPublication)
	case c.SubscribeMin < time.Second:
		return fmt.Errorf("SubscribeMin: %v is less than 1s", c.SubscribeMin)
	case c.SubscribeDefault < c.SubscribeMin || c.SubscribeMax < c.SubscribeDefault:
		return fmt.Errorf("SubscribeDefault: %v is not between SubscribeMin %v and SubscribeMax %v", c.SubscribeDefault, c.SubscribeMin, c.SubscribeMax)
	case c.MaxSubscriptions < 1:
		return fmt.Errorf("MaxSubscriptions: %d is less than 1", c.MaxSubscriptions)
	case c.MaxWatchers < 1:
		return fmt.Errorf("MaxWatchers: %d is less than 1", c.MaxWatchers)
	case c.MaxDialogs < 1:
		return fmt.Errorf("MaxDialogs: %d is less than 1", c.MaxDialogs)
	case c.MaxListMembers < 1:
		return fmt.Errorf("MaxListMembers: %d is less than 1", c.MaxListMembers)
	case c.MaxNotifies < 1:
		return fmt.Errorf("MaxNotifies: %d is less than 1", c.MaxNotifies)
	case c.NotifyInterval < 0:
		return fmt.Errorf("NotifyInterval: %v is negative", c.NotifyInterval)
	case c.MessageTTL < time.Minute:
		return fmt.Errorf("MessageTTL: %v is less than 1m", c.MessageTTL)
	case c.MaxMessageSize < 1:
		return fmt.Errorf("MaxMessageSize: %d is less than 1", c.MaxMessageSize)
	case c.MaxStoredMessages < 1:
		return fmt.Errorf("MaxStoredMessages: %d is less than 1", c.MaxStoredMessages)
	case c.MessageWait < time.Second || c.MessageWait > 30*time.Second:
		return fmt.Errorf("MessageWait: %v is not in 1s..30s", c.MessageWait)
	case c.MaxLookups < 1:
		return fmt.Errorf("MaxLookups: %d is less than 1", c.MaxLookups)
	}
	for _, a := range c.Addresses {
		if !slices.Contains(transports[1:], a.Transport) {
			return fmt.Errorf("Addresses: unknown transport %q", a.Transport)
		}
		if !a.Addr.IsValid() || a.Addr.Port() == 0 || a.Addr.Addr().IsUnspecified() {
			return fmt.Errorf("Addresses: %s %v cannot be called", a.Transport, a.Addr)
		}
	}
	return nil
}

// ValidRecordRoute tells whether a text is the host part of a URI, or empty.
func ValidRecordRoute(host string) bool {
	if host == "" {
		return true
	}
	u, err := parseURI("sip:x@" + host)
	return err == nil && u.host != "" && u.user == "x" && u.params == "" && u.headers == ""
}
