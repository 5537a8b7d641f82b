package cluster

// Plan is where keys would be placed by members of given names, without any of
// them running: for planning, and for looking at clusters that no machine has.
type Plan struct {
	v     *view
	names []string
}

// NewPlan plans for live members of these names, which differ from each other.
func NewPlan(names []string) *Plan {
	p := &Plan{}
	if len(names) == 0 {
		return p
	}
	var rest []Member
	for _, name := range names[1:] {
		rest = append(rest, Member{Name: name})
	}
	p.v = newView(1, Member{Name: names[0]}, rest, func(string) bool { return false }, func(Member) *neighbor { return nil })
	for i := range p.v.nodes {
		p.names = append(p.names, p.v.nodes[i].Name)
	}
	return p
}

// Names are the members in the order that Place counts in.
func (p *Plan) Names() []string { return p.names }

// Place is the owner and the backup of a key, as indices into Names; -1 is nobody.
func (p *Plan) Place(key string) (owner, backup int) {
	if p.v == nil {
		return none, none
	}
	return p.v.place(key)
}
