package cluster

// DrainStatus is how far a node has handed over what it holds for others.
type DrainStatus struct {
	// Draining: this node's view has it as one that holds nothing new.
	Draining bool
	// Done: every other member has all that this node held. It goes on being
	// the edge of its own flows.
	Done bool
	// Left are the records that somebody else has yet to acknowledge.
	Left int
	// Waiting are the members that have not been told "done" in their present view.
	Waiting []string
}

// DrainStatus looks at every record that is not at rest.
func (c *Core) DrainStatus() DrainStatus {
	c.viewMu.Lock()
	v := c.view.Load()
	st := DrainStatus{Draining: v.nodes[v.self].Draining}
	scanning := c.scanning()
	for i := range v.nodes {
		if p := v.nodes[i].peer; p != nil && (!p.answered || p.wants == nil || p.wants.Digest != v.digest) {
			st.Waiting = append(st.Waiting, p.name)
		}
	}
	c.viewMu.Unlock()
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.waiting(func(e *entry) {
			if e.x != nil && (e.x.former || len(e.x.targets) > 0) {
				st.Left++
			}
		})
		s.mu.Unlock()
	}
	st.Done = st.Draining && !scanning && len(st.Waiting) == 0 && st.Left == 0
	return st
}
