package cluster

import "github.com/zeebo/xxh3"

// Rules and SwitchOff let a simulation leave rules out.
type Rules = rules

// SwitchOff must be called before the first message.
func (c *Core) SwitchOff(r Rules) { c.off = r }

// ShardOf is the part of the table that an AoR is in.
func ShardOf(aor string) uint64 { return xxh3.HashString(aor) >> 58 }
