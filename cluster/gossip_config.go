package cluster

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/hashicorp/memberlist"
)

func (g *Gossip) memberlistConfig() (*memberlist.Config, error) {
	bind, err := netip.ParseAddrPort(g.cfg.Bind)
	if err != nil {
		return nil, err
	}
	c := memberlist.DefaultLANConfig()
	c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = 500*time.Millisecond, g.cfg.Profile.ProbeTimeout(), 3
	c.SuspicionMaxTimeoutMult = 2
	c.GossipInterval, c.PushPullInterval = 100*time.Millisecond, 15*time.Second
	c.TCPTimeout = 2 * time.Second
	if g.cfg.Profile == ProfileWAN {
		c.ProbeInterval, c.ProbeTimeout, c.SuspicionMult = 2*time.Second, g.cfg.Profile.ProbeTimeout(), 4
		c.SuspicionMaxTimeoutMult = 4
		c.GossipInterval, c.PushPullInterval = 300*time.Millisecond, 30*time.Second
		c.TCPTimeout = 5 * time.Second
	}
	// A name of memberlist's is one incarnation: a restart is another node to
	// it, which it needs no consent of the dead for, whatever its address.
	c.Name = incarnationName(g.cfg.Self.Name, g.cfg.Self.Incarnation)
	c.BindAddr, c.BindPort, c.AdvertisePort = bind.Addr().String(), int(bind.Port()), int(bind.Port())
	if g.cfg.Self.Gossip != "" {
		adv, err := netip.ParseAddrPort(g.cfg.Self.Gossip)
		if err != nil {
			return nil, fmt.Errorf("advertised address: %w", err)
		}
		c.AdvertiseAddr, c.AdvertisePort = adv.Addr().String(), int(adv.Port())
	}
	c.Label = "hereis"
	if g.cfg.Keys != nil && g.cfg.Keys.Secure {
		c.SecretKey = g.cfg.Keys.Gossip
	}
	c.Logger = quietLogger(g.log, g.reach)
	d := &gossipDelegate{g: g}
	c.Delegate, c.Events, c.Alive = d, d, d
	return c, nil
}

func incarnationName(name string, incarnation uint64) string {
	return name + "@" + strconv.FormatUint(incarnation, 36)
}
