package cluster

import "github.com/zeebo/xxh3"

// Rules and SwitchOff let a simulation leave rules out.
type Rules = rules

// SwitchOff must be called before the first message.
func (c *Core) SwitchOff(r Rules) { c.off = r }

// ShardOf is the part of the table that an AoR is in.
func ShardOf(aor string) uint64 { return xxh3.HashString(aor) >> 58 }

// Hear registers who takes events of a type, as Node.HandleEvent does.
func (c *Core) Hear(typeName string, h Hearer) {
	c.hearers[typeName] = append(c.hearers[typeName], h)
}

// Round changes with every change of the view.
func (c *Core) Round() uint64 { return c.view.Load().round }
