package cluster

import (
	"math/bits"

	"github.com/zeebo/xxh3"
)

// Placement is rendezvous hashing: each member gives each AoR a score, and the
// two highest are its owner and its backup. When a member goes, only what it
// held moves; when the owner goes, the backup is the new owner by construction.

// none is the index of no member.
const none = -1

// score is the weight of a member for a key: both hashes mixed to 64 bits by a
// 128-bit product, as the sum or xor of two good hashes alone orders the
// members alike for many keys.
func score(member, key uint64) uint64 {
	hi, lo := bits.Mul64(member^key^0x9e3779b97f4a7c15, (key|1)*0xd6e8feb86659fd93)
	x := hi ^ lo ^ member
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	return x
}

// place returns the indices of owner and backup in v.Nodes, or none. It does
// not allocate.
func (v *view) place(aor string) (owner, backup int) {
	key := xxh3.HashString(aor)
	owner, backup = none, none
	var first, second uint64
	for _, i := range v.placeable {
		s := score(v.nodes[i].hash, key)
		switch {
		case owner == none || s > first:
			backup, second = owner, first
			owner, first = i, s
		case backup == none || s > second:
			backup, second = i, s
		}
	}
	return owner, backup
}

// order returns the first n placeable members in the rendezvous order of an
// AoR: those that may have held it before members came or went.
func (v *view) order(aor string, n int) []int {
	key := xxh3.HashString(aor)
	var top []int
	for _, i := range v.placeable {
		s := score(v.nodes[i].hash, key)
		at := len(top)
		for at > 0 && score(v.nodes[top[at-1]].hash, key) < s {
			at--
		}
		if at >= n {
			continue
		}
		top = append(top, 0)
		copy(top[at+1:], top[at:])
		top[at] = i
		top = top[:min(len(top), n)]
	}
	return top
}

// holds tells whether node i is owner or backup of an AoR.
func (v *view) holds(i int, aor string) bool {
	owner, backup := v.place(aor)
	return i == owner || i == backup
}

// Owner is the name of the first holder of a key in the present view, or empty
// if no member holds anything.
func (c *Core) Owner(key string) string {
	v := c.view.Load()
	owner, _ := v.place(key)
	return v.name(owner)
}
