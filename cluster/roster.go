package cluster

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"hereis/messages"
)

// sighting is one incarnation of a member as memberlist has it.
type sighting struct {
	member Member
	addr   netip.AddrPort
}

// roster makes members with stable names out of what memberlist knows, which
// is incarnations. It is plain state, without memberlist and without a lock of
// its own.
type roster struct {
	self Member
	// alive is what memberlist has as alive or suspected, by its name for it.
	alive map[string]sighting
	// known is the incarnation that counts, by stable name; never this node.
	known map[string]*knownMember
	// rivals are incarnations that stand against another of the same name.
	rivals map[string]*rival
	// departed is the highest incarnation that left or was forgotten.
	departed map[string]departure
}

// departure is the end of an incarnation by leave or forget.
type departure struct {
	incarnation uint64
	ms          int64 // node time
	saved       bool
}

type knownMember struct {
	member Member // FailedMS is 0 while it is live
	saved  bool
}

// rival is a live incarnation that another one of its name wants to replace.
type rival struct {
	first   time.Time // when it was first seen beside the other
	probing bool
	asked   time.Time // when the last probe ended
	answers bool
	dead    bool // it did not answer
}

type rosterProbe struct {
	node string // memberlist's name
	addr netip.AddrPort
}

type rosterChange struct {
	members []Member // without this node
	away    []Away   // left or forgotten, and not back
	save    []*messages.RememberedMember
	drop    []string
	probes  []rosterProbe
	taken   bool
	rival   string // address of the node that has our name
}

const (
	// Of two live nodes of one name, the newer gives way while they have known
	// each other for less than newerYields; after olderYields, the older:
	// then it is one that was held for dead and replaced.
	newerYields = 10 * time.Second
	olderYields = 15 * time.Second
	reprobe     = time.Second
)

func newRoster(self Member) *roster {
	return &roster{
		self: self, alive: map[string]sighting{}, known: map[string]*knownMember{},
		rivals: map[string]*rival{}, departed: map[string]departure{},
	}
}

// remember takes what an earlier process knew: members to be found again, and
// failed until they are.
func (r *roster) remember(stored []*messages.RememberedMember, nowMS int64) {
	for _, m := range stored {
		if m.Name == r.self.Name {
			continue
		}
		if m.LeftMs != 0 {
			r.departed[m.Name] = departure{incarnation: m.Incarnation, ms: m.LeftMs, saved: true}
			continue
		}
		failed := cmp.Or(m.FailedMs, nowMS)
		r.known[m.Name] = &knownMember{saved: true, member: Member{
			Name: m.Name, Incarnation: m.Incarnation, Gossip: m.Gossip,
			Region: m.Region, Zone: m.Zone, FailedMS: failed,
		}}
	}
}

// refresh works out who is a member now.
func (r *roster) refresh(nowMS int64, now time.Time) rosterChange {
	var out rosterChange
	// In the order of incarnations, so that the newest has the last word.
	for _, node := range r.byIncarnation() {
		s := r.alive[node]
		if s.member.Name == r.self.Name {
			r.meetNamesake(node, s, now, &out)
			continue
		}
		r.sight(s, now, &out)
	}
	for name, k := range r.known {
		switch _, live := r.alive[incarnationName(name, k.member.Incarnation)]; {
		case !live && k.member.Incarnation <= r.departed[name].incarnation:
			delete(r.known, name)
			continue
		case !live && k.member.FailedMS == 0:
			k.member.FailedMS, k.saved = nowMS, false
		}
		if !k.saved {
			k.saved = true
			out.save = append(out.save, rememberedOf(k.member))
		}
		out.members = append(out.members, k.member)
	}
	slices.SortFunc(out.members, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	r.listAway(nowMS, &out)
	r.tidy(now)
	return out
}

// listAway names those that left or were forgotten and are not back.
func (r *roster) listAway(nowMS int64, out *rosterChange) {
	for name, d := range r.departed {
		if r.known[name] != nil {
			continue
		}
		if d.ms+awayMS < nowMS {
			delete(r.departed, name)
			out.drop = append(out.drop, name)
			continue
		}
		if !d.saved {
			d.saved = true
			r.departed[name] = d
			out.save = append(out.save, &messages.RememberedMember{Name: name, Incarnation: d.incarnation, LeftMs: d.ms})
		}
		out.away = append(out.away, Away{Name: name, SinceMS: d.ms})
	}
	slices.SortFunc(out.away, func(a, b Away) int { return cmp.Compare(a.Name, b.Name) })
}

func (r *roster) byIncarnation() []string {
	nodes := make([]string, 0, len(r.alive))
	for node := range r.alive {
		nodes = append(nodes, node)
	}
	slices.SortFunc(nodes, func(a, b string) int {
		return cmp.Compare(r.alive[a].member.Incarnation, r.alive[b].member.Incarnation)
	})
	return nodes
}

// sight takes a live incarnation: the one that is known, a first one, or one
// that replaces the known one. That happens at once if the known one is gone or
// had the same address, and otherwise when it does not answer.
func (r *roster) sight(s sighting, now time.Time, out *rosterChange) {
	k := r.known[s.member.Name]
	if k == nil {
		r.known[s.member.Name] = &knownMember{member: s.member}
		return
	}
	if s.member.Incarnation < k.member.Incarnation {
		return
	}
	if s.member.Incarnation > k.member.Incarnation {
		node := incarnationName(k.member.Name, k.member.Incarnation)
		old, live := r.alive[node]
		if live && old.addr != s.addr && !r.probe(node, old, now, out).dead {
			return
		}
	}
	if k.member != s.member {
		k.saved = k.saved && !storedDiffers(k.member, s.member)
		k.member = s.member
	}
}

// meetNamesake deals with another incarnation of this node's own name.
func (r *roster) meetNamesake(node string, s sighting, now time.Time, out *rosterChange) {
	if s.member.Incarnation == r.self.Incarnation {
		return
	}
	v := r.probe(node, s, now, out)
	if !v.answers {
		return
	}
	together := now.Sub(v.first)
	if newer := r.self.Incarnation > s.member.Incarnation; (newer && together < newerYields) || (!newer && together > olderYields) {
		out.taken, out.rival = true, s.addr.String()
	}
}

// probe looks up, or has found out, whether a rival lives.
func (r *roster) probe(node string, s sighting, now time.Time, out *rosterChange) *rival {
	v := r.rivals[node]
	if v == nil {
		v = &rival{first: now}
		r.rivals[node] = v
	}
	if !v.probing && now.Sub(v.asked) > reprobe {
		v.probing = true
		out.probes = append(out.probes, rosterProbe{node: node, addr: s.addr})
	}
	return v
}

func (r *roster) probed(node string, answered bool, now time.Time) {
	if v := r.rivals[node]; v != nil {
		v.probing, v.asked, v.answers, v.dead = false, now, answered, !answered
	}
}

// tidy forgets rivals that have not been asked about for long.
func (r *roster) tidy(now time.Time) {
	for node, v := range r.rivals {
		if !v.probing && now.Sub(v.asked) > time.Hour {
			delete(r.rivals, node)
		}
	}
}

// depart takes word of members that left or were forgotten.
func (r *roster) depart(marks []*messages.MemberMark, nowMS int64) {
	for _, m := range marks {
		if m.Name != r.self.Name && m.Incarnation > r.departed[m.Name].incarnation {
			r.departed[m.Name] = departure{incarnation: m.Incarnation, ms: cmp.Or(m.LeftMs, nowMS)}
		}
	}
}

// forget departs a failed member by hand; nil if there is none.
func (r *roster) forget(name string, nowMS int64) *messages.MemberMark {
	k := r.known[name]
	if k == nil || k.member.FailedMS == 0 {
		return nil
	}
	mark := &messages.MemberMark{Name: name, Incarnation: k.member.Incarnation, LeftMs: nowMS}
	r.depart([]*messages.MemberMark{mark}, nowMS)
	return mark
}

func (r *roster) lives(m *messages.MemberMark) bool {
	_, ok := r.alive[incarnationName(m.Name, m.Incarnation)]
	return ok
}

// state is what is told in a full exchange.
func (r *roster) state() *messages.GossipState {
	st := &messages.GossipState{}
	for name, d := range r.departed {
		st.Departed = append(st.Departed, &messages.MemberMark{Name: name, Incarnation: d.incarnation, LeftMs: d.ms})
	}
	for name, k := range r.known {
		st.Known = append(st.Known, &messages.MemberMark{Name: name, Incarnation: k.member.Incarnation})
	}
	return st
}

func (r *roster) failed() []Member {
	var list []Member
	for _, k := range r.known {
		if k.member.FailedMS != 0 {
			list = append(list, k.member)
		}
	}
	slices.SortFunc(list, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// liveAddrs are the gossip addresses that need not be dialled.
func (r *roster) liveAddrs() map[string]bool {
	m := make(map[string]bool, len(r.alive))
	for _, s := range r.alive {
		m[s.addr.String()] = true
	}
	return m
}

func rememberedOf(m Member) *messages.RememberedMember {
	return &messages.RememberedMember{
		Name: m.Name, Incarnation: m.Incarnation, Gossip: m.Gossip,
		FailedMs: m.FailedMS, Region: m.Region, Zone: m.Zone,
	}
}

func storedDiffers(a, b Member) bool {
	return a.Incarnation != b.Incarnation || a.Gossip != b.Gossip || a.FailedMS != b.FailedMS ||
		a.Region != b.Region || a.Zone != b.Zone
}
