package cluster

import (
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// gossipDelegate is what memberlist calls, mostly under its own locks: it
// notes what it hears and wakes Run.
type gossipDelegate struct{ g *Gossip }

var (
	_ memberlist.Delegate      = (*gossipDelegate)(nil)
	_ memberlist.EventDelegate = (*gossipDelegate)(nil)
	_ memberlist.AliveDelegate = (*gossipDelegate)(nil)
)

func openMeta(n *memberlist.Node) (sighting, error) {
	var meta messages.MemberMeta
	if err := proto.Unmarshal(n.Meta, &meta); err != nil {
		return sighting{}, fmt.Errorf("metadata: %w", err)
	}
	if err := CheckName(meta.Name); err != nil {
		return sighting{}, err
	}
	if n.Name != incarnationName(meta.Name, meta.Incarnation) {
		return sighting{}, fmt.Errorf("metadata of %q in the name of %q", meta.Name, n.Name)
	}
	addr, _ := netip.AddrFromSlice(n.Addr)
	ap := netip.AddrPortFrom(addr.Unmap(), n.Port)
	return sighting{addr: ap, member: Member{
		Name: meta.Name, Incarnation: meta.Incarnation, Stream: meta.Stream, Remote: meta.Remote,
		Gossip: ap.String(), Region: meta.Region, Zone: meta.Zone, Version: meta.Version, Draining: meta.Draining,
	}}, nil
}

// NotifyAlive keeps out what is no node of ours.
func (d *gossipDelegate) NotifyAlive(n *memberlist.Node) error {
	_, err := openMeta(n)
	return err
}

func (d *gossipDelegate) NotifyJoin(n *memberlist.Node) {
	s, err := openMeta(n)
	if err != nil {
		return
	}
	d.g.mu.Lock()
	d.g.ros.alive[n.Name] = s
	d.g.mu.Unlock()
	d.g.wake()
}

func (d *gossipDelegate) NotifyUpdate(n *memberlist.Node) { d.NotifyJoin(n) }

func (d *gossipDelegate) NotifyLeave(n *memberlist.Node) {
	d.g.mu.Lock()
	delete(d.g.ros.alive, n.Name)
	d.g.mu.Unlock()
	d.g.wake()
}

func (d *gossipDelegate) NodeMeta(int) []byte {
	d.g.mu.Lock()
	defer d.g.mu.Unlock()
	b, err := proto.Marshal(d.g.meta)
	if err != nil {
		return nil // four strings and three numbers: cannot be
	}
	return b
}

func (d *gossipDelegate) LocalState(bool) []byte {
	d.g.mu.Lock()
	st := d.g.ros.state()
	d.g.mu.Unlock()
	b, err := proto.Marshal(st)
	if err != nil {
		return nil
	}
	return b
}

func (d *gossipDelegate) MergeRemoteState(buf []byte, _ bool) { d.NotifyMsg(buf) }

func (d *gossipDelegate) NotifyMsg(buf []byte) {
	var st messages.GossipState
	if proto.Unmarshal(buf, &st) != nil {
		return
	}
	self := d.g.cfg.Self
	now := d.g.cfg.NowMS()
	d.g.mu.Lock()
	for _, m := range slices.Concat(st.Known, st.Departed) {
		// One that lives is a matter of the name (ErrNameTaken).
		if m.Name == self.Name && m.Incarnation > self.Incarnation && d.g.fatal == nil && !d.g.ros.lives(m) {
			d.g.fatal = IncarnationError{Known: m.Incarnation}
		}
	}
	d.g.ros.depart(st.Departed, now)
	d.g.mu.Unlock()
	d.g.wake()
}

func (d *gossipDelegate) GetBroadcasts(int, int) [][]byte { return nil }

// quietLogger turns what memberlist says into Debug: the facts of interest
// come as events, but for strangers, of whom it only speaks.
func quietLogger(l *slog.Logger, r *reach) *log.Logger {
	return log.New(slogWriter{l, r}, "", 0)
}

type slogWriter struct {
	log   *slog.Logger
	reach *reach
}

var _ io.Writer = slogWriter{}

func (w slogWriter) Write(b []byte) (int, error) {
	said := strings.TrimSpace(string(b))
	w.log.Debug("memberlist", "said", said)
	if what, ok := strings.CutPrefix(said, "[ERR] memberlist: "); ok && foreignSecret(what) {
		w.reach.stranger(what, time.Now())
	}
	return len(b), nil
}
