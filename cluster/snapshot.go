package cluster

import (
	"cmp"
	"slices"
	"strings"

	"github.com/zeebo/xxh3"
	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// ListOrder is the order of Snapshot and of lists made from it: that of the
// AoRs' hashes. A page then costs a look at a part of the table, wherever it
// begins, and the order is the same at every node.
func ListOrder(a, b string) int {
	return cmp.Or(cmp.Compare(xxh3.HashString(a), xxh3.HashString(b)), strings.Compare(a, b))
}

// pageBytes is about how large a Snapshotted becomes: far below a frame, so that
// it delays no request behind it for long.
const pageBytes = 128 << 10

// found is a record with its place in the list, and its order for a follower.
type found struct {
	hash  uint64
	rec   *messages.Record
	order uint64
}

// snapshot lists users who are online and whom this node owns (or holds, if
// asked to), or all that a follower is shown, a page at a time. It locks one shard at a time, and looks at no
// more of them than the page needs.
func (c *Core) snapshot(now int64, q *messages.Snapshot) *messages.Snapshotted {
	limit := int(q.Limit)
	if limit <= 0 || limit > c.cfg.SnapshotLimit {
		limit = c.cfg.SnapshotLimit
	}
	v := c.view.Load()
	out, size, first, last := &messages.Snapshotted{NowMs: now}, 0, 0, shards
	if q.Follow {
		out.Incarnation, out.Round, out.Digest, out.Settled = c.cfg.Incarnation, v.round, v.digest, c.settled.Load()
	}
	if q.After != "" {
		// A shard is the top of the hash: shards are in order.
		first = shardOf(q.After)
	}
	if q.Pattern != "" && q.Pattern != "*" && q.Pattern[0] != '@' {
		first = max(first, shardOf(q.Pattern))
		last = shardOf(q.Pattern) + 1
	}
	for i := first; i < last; i++ {
		for _, f := range c.matching(now, v, &c.shards[i], q) {
			if len(out.Records) >= limit || size >= pageBytes {
				out.Next = out.Records[len(out.Records)-1].Aor
				return out
			}
			out.Records = append(out.Records, f.rec)
			if q.Follow {
				out.Orders = append(out.Orders, f.order)
			}
			size += proto.Size(f.rec)
		}
	}
	return out
}

// matching is what a snapshot wants of one shard, in order.
func (c *Core) matching(now int64, v *view, s *shard, q *messages.Snapshot) (page []found) {
	after := xxh3.HashString(q.After)
	var room messages.RecordRoom
	s.mu.Lock()
	s.each(func(g glance) bool {
		aor := g.aor()
		hash := xxh3.HashString(aor)
		if q.After != "" && (hash < after || hash == after && aor <= q.After) || q.Pattern != "" && !matches(q.Pattern, aor) {
			return true
		}
		owner, backup := v.place(aor)
		switch {
		case q.Follow && owner == v.self:
			if shown := c.parts.Grains.Shown(g.keep()); !shown.Empty() {
				page = append(page, found{hash, shown, c.changes.Load()})
			}
		case q.Follow:
		case owner == v.self || q.Backup && backup == v.self:
			if online(g.read(&room), now) {
				page = append(page, found{hash: hash, rec: g.keep()})
			}
		}
		return true
	})
	s.mu.Unlock()
	slices.SortFunc(page, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(a.rec.Aor, b.rec.Aor))
	})
	return page
}

// counted counts the users who are online and whom this node owns.
func (c *Core) counted(now int64, q *messages.Count) *messages.Counted {
	v := c.view.Load()
	out := &messages.Counted{}
	var room messages.RecordRoom
	c.walk(func(_ *shard, g glance) {
		if aor := g.aor(); q.Pattern != "" && !matches(q.Pattern, aor) || !ownedBy(v, aor) {
			return
		}
		live := uint64(0)
		rec := g.read(&room)
		for _, l := range rec.Leases {
			if l.Kind <= messages.LeaseKind_LEASE_KIND_BINDING && rec.Alive(l, now) {
				live++
			}
		}
		if live > 0 {
			out.Users++
			out.Bindings += live
		}
	})
	return out
}

// online tells whether a user has a live binding; other leases do not make one.
func online(rec *messages.Record, now int64) bool {
	return slices.ContainsFunc(rec.Leases, func(l *messages.Lease) bool {
		return l.Kind <= messages.LeaseKind_LEASE_KIND_BINDING && rec.Alive(l, now)
	})
}
