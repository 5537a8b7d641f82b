package hereis

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"hereis/actors"
	"hereis/cluster"
	"hereis/messages"
)

// Name is the stable name of the node.
func (n *Node) Name() string { return n.self.Name }

// Incarnation is this run's; each start of a node has a higher one.
func (n *Node) Incarnation() uint64 { return n.self.Incarnation }

// Domains are the served domains without aliases, the default one first.
func (n *Node) Domains() []string { return n.domains.Names() }

// ParseAoR reads an address of a user as people write it: sip:alice@example.com,
// tel:+15550100, alice@example.com, or alice alone for the default domain.
// Errors are actors.ErrBadURI and actors.ErrForeignDomain.
func (n *Node) ParseAoR(s string) (actors.AoR, error) {
	if scheme, _, found := strings.Cut(s, ":"); !found || !slices.Contains(schemes, strings.ToLower(scheme)) {
		if !strings.Contains(s, "@") {
			s += "@" + bracketed(n.domains.Default())
		}
		s = "sip:" + s
	}
	return actors.ParseAoR(s, n.domains)
}

// schemes are those that an AoR may be written with.
var schemes = []string{"sip", "sips", "tel"}

// bracketed is a host as it stands in a URI.
func bracketed(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() {
		return "[" + host + "]"
	}
	return host
}

// SIPAddrs are the advertised SIP addresses, as "udp:ip:port".
func (n *Node) SIPAddrs() []string { return n.sipAddrs() }

// GossipAddr is what another node gives to --join.
func (n *Node) GossipAddr() string { return n.gossip.Addr() }

// Where asks the cluster for all that is known of a user, for people. ctx's
// deadline bounds it.
func (n *Node) Where(ctx context.Context, aor actors.AoR) (*messages.Whereabouts, error) {
	return n.client.Where(ctx, aor)
}

// Locate asks where a user can be called.
func (n *Node) Locate(ctx context.Context, aor actors.AoR) (*messages.Located, error) {
	return n.client.Locate(ctx, aor)
}

// Members lists this node and those that it knows, live or failed.
func (n *Node) Members() []cluster.MemberStatus {
	members := n.cluster.Members()
	for i := range members {
		if members[i].Name == n.self.Name {
			members[i].Member = n.self
		}
	}
	return members
}

// Hello is what a node said of itself when its stream opened: its SIP and admin
// addresses; nil if it has not been heard of.
func (n *Node) Hello(node string) *messages.Hello { return n.peers.hello(node) }

// ErrUnsettled is the answer of Ready while the node does not know yet what it should.
var ErrUnsettled = errors.New("the view of the cluster is not settled")

// Healthy is nil while the node can do its work, or says what a person must see
// to: a disk that fails, or nodes that it was told to join and cannot.
func (n *Node) Healthy() error {
	if err := n.store.Err(); err != nil {
		return err
	}
	return n.gossip.Trouble()
}

// Ready is nil when the node serves with full knowledge, or says what is missing.
// A node that is not ready serves all the same, as far as it can.
func (n *Node) Ready() error {
	if err := n.store.Err(); err != nil {
		return err
	}
	if n.duty.clockOff.Load() {
		return fmt.Errorf("%w: most members differ by %v", ErrClock, n.clock.Stats().Skew.Round(time.Millisecond))
	}
	if !n.cluster.Settled() {
		return ErrUnsettled
	}
	return nil
}

// Version is the version of the module and, if known, the commit that it was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	version, revision := info.Main.Version, ""
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			revision = s.Value[:12]
		}
	}
	switch {
	case version == "" || version == "(devel)":
		version = "devel"
	case revision != "":
		return version
	}
	if revision != "" {
		version += "+" + revision
	}
	return version
}
