package cluster

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"

	"hereis/messages"
)

// Rules and SwitchOff let a simulation leave rules out.
type Rules = rules

// SwitchOff must be called before the first message.
func (c *Core) SwitchOff(r Rules) { c.off = r }

// Pause is how many ms the next tick may wait, and Roused tells, once, that
// something has happened meanwhile.
func (c *Core) Pause(now int64) int64 { return c.pause(now).Milliseconds() }

func (c *Core) Roused() bool {
	select {
	case <-c.stirring.rouse:
		return true
	default:
		return false
	}
}

// Ticks counts how often the core was told the time.
func (n *Node) Ticks() uint64 { return n.core.stirring.ticks.Load() }

// ShardOf is the part of the table that an AoR is in.
func ShardOf(aor string) uint64 { return xxh3.HashString(aor) >> 58 }

// TallyError tells what is wrong with the sums of what is shared with others:
// they are to be those of the records that are marked as counted, and the others
// to be filed. walked: the tally is whole.
func (c *Core) TallyError() (walked bool, err error) {
	c.digests.mu.Lock()
	defer c.digests.mu.Unlock()
	t := c.tally.Load()
	if t == nil || !t.whole() {
		return false, nil
	}
	want := sums{t.width, make(map[string]*shared)}
	var room messages.RecordRoom
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.each(func(g glance) bool {
			rec := g.read(&room)
			sec, young := c.isYoung(rec)
			switch {
			case g.counted() == t.number:
				c.sum(t.v, rec, g.hash(), want)
			case !young || !slices.Contains(s.young[sec], g.id):
				err = fmt.Errorf("%s is not counted, young %t, and not filed", g.aor(), young)
			}
			return true
		})
		s.mu.Unlock()
	}
	got := t.sums()
	for i := range t.v.nodes {
		name := t.v.nodes[i].Name
		if b, _ := differing(got.of(name), want.of(name)); len(b) > 0 {
			err = fmt.Errorf("%d sums of what is shared with %s are wrong", len(b), name)
		}
		if with := want.with[name]; with != nil && with.records != got.with[name].records {
			err = fmt.Errorf("%d records are shared with %s, %d counted", with.records, name, got.with[name].records)
		}
	}
	return true, err
}

// Dump is all that this node knows of users and is to do about them, in words
// that are equal where it is. Nothing may be awake.
func (c *Core) Dump() string {
	var b strings.Builder
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		var cells []string
		s.each(func(g glance) bool {
			cells = append(cells, fmt.Sprintf("%x: %x", g.id, []byte(g.at)))
			return true
		})
		slices.Sort(cells)
		due := make(map[int64][]uint64)
		for sec, ids := range s.due {
			due[sec] = slices.Sorted(slices.Values(ids))
		}
		if len(cells)+len(due)+len(s.accepted.new)+len(s.accepted.old)+len(s.young)+len(s.pulls)+len(s.waits) == 0 {
			s.mu.Unlock()
			continue
		}
		fmt.Fprintf(&b, "%d: %v due %v to %d, accepted %v %v since %d, young %v, %d pulls, %d waits\n", i, cells, due, s.dueSec,
			s.accepted.new, s.accepted.old, s.accepted.since, s.young, len(s.pulls), len(s.waits))
		s.mu.Unlock()
	}
	fmt.Fprintf(&b, "clock %d %d, %d asks, %d here", c.hlc.ms, c.hlc.counter, c.stats.Asks.Load(), c.stats.LocalAsks.Load())
	return b.String()
}

// Behind tells whether this node's disk lacks something that it should have.
func (c *Core) Behind() bool { return c.unstored.any() }

// Hear registers who takes events of a type, as Node.HandleEvent does.
func (c *Core) Hear(typeName string, h Hearer) {
	c.hearers[typeName] = append(c.hearers[typeName], h)
}

// Round changes with every change of the view.
func (c *Core) Round() uint64 { return c.view.Load().round }

// Awake counts the entries that are not at rest.
func (c *Core) Awake() (n int) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.waiting(func(*entry) { n++ })
		s.mu.Unlock()
	}
	return n
}

// Rescan walks as after a new view, the present one again.
func (c *Core) Rescan(now int64) {
	c.viewMu.Lock()
	c.beginScan(c.view.Load())
	c.viewMu.Unlock()
	for c.scan.active {
		c.tickScan(now)
	}
}

// AppendFrame writes an Envelope as it goes over a stream.
func AppendFrame(dst []byte, env *messages.Envelope, limit int) ([]byte, error) {
	return appendFrame(dst, env, limit)
}

// ReadFrame reads an Envelope as it came over a stream, and tells what is after it.
func ReadFrame(b []byte) (env *messages.Envelope, rest []byte, err error) {
	end := frameHead + int(binary.BigEndian.Uint32(b))
	env, err = messages.ReadEnvelope(b[frameHead:end])
	return env, b[end:], err
}
