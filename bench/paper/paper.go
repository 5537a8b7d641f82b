// Package paper computes what a cluster of any size would do: how evenly users
// are placed, what moves when a node joins or leaves, what a REGISTER sends,
// and what a node holds. It asks the placement of package cluster itself, for
// every user or, where those are too many, for a sample of them.
package paper

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"hereis/bench/report"
	"hereis/cluster"
)

// Config is a cluster on paper.
type Config struct {
	Nodes int
	Users uint64
	// Sample is how many of the users are placed; 0: all of them.
	Sample uint64
	// CopyBytes is what one copy of a user's contact takes in a node's memory and on the way.
	CopyBytes float64
	// Bulk is how many bytes one message of a hand-over carries.
	Bulk float64
}

// DefaultConfig is a thousand nodes and a hundred million users.
func DefaultConfig() Config {
	return Config{Nodes: 1000, Users: 100_000_000, Sample: 2_000_000, CopyBytes: 1024, Bulk: 32 << 10}
}

// Result is what came of it. Shares are of all users.
type Result struct {
	Config Config
	Placed uint64
	// Took is the time of one placement, on one core of this machine.
	Took time.Duration
	// Owned and Held are what the nodes own, and hold as owner or backup.
	Owned, Held Balance
	Join, Leave Move
	// Messages per REGISTER, with the questions and answers between nodes, and the copy with its acknowledgement.
	Messages float64
	// Copies of a contact: edge, owner and backup, where they are different nodes.
	Copies float64
}

// Balance is how evenly nodes are loaded, each node's part divided by the mean.
type Balance struct {
	Least, Most float64
	// Evenness is the variance over that of users who choose their node by
	// chance: 1 is as good as chance can be, more is a bias of the hash.
	Evenness float64
	// WholeMost is the most loaded node of all users, as Evenness foretells it: what
	// chance alone makes of so many.
	WholeMost float64
}

// Move is what one node that comes or goes makes others move.
type Move struct {
	// Owners and Holders are the shares of users whose owner changes, and who get a holder that had nothing of them.
	Owners, Holders float64
	// IdealOwners and IdealHolders are the least possible.
	IdealOwners, IdealHolders float64
	// Bystanders are users who move although the node is not concerned: there must be none.
	Bystanders uint64
	// Spread is the largest part of the moved copies that one other node gets (or gives), over the mean.
	Spread float64
}

// Simulate computes.
func Simulate(c Config) (*Result, error) {
	if c.Nodes < 2 || c.Users == 0 {
		return nil, fmt.Errorf("nodes: must be 2 or more, and users above 0")
	}
	n := c.Users
	if c.Sample > 0 {
		n = min(n, c.Sample)
	}
	var names []string
	for i := range c.Nodes + 1 {
		names = append(names, fmt.Sprintf("node%05d", i))
	}
	// The last of them, by name and so by index, is who joins and who leaves.
	now, without, with := cluster.NewPlan(names[:c.Nodes]), cluster.NewPlan(names[:c.Nodes-1]), cluster.NewPlan(names)
	t := tally(n, c, now, without, with)
	r := &Result{Config: c, Placed: n, Took: t.took}
	r.Owned = balance(t.owned, n, c.Users, 1/float64(c.Nodes))
	r.Held = balance(t.held, n, c.Users, 2/float64(c.Nodes))
	nodes := float64(c.Nodes)
	r.Leave = t.leave.move(n, 1/nodes, 2/nodes)
	r.Join = t.join.move(n, 1/(nodes+1), 2/(nodes+1))
	// An edge is any node: it is the owner itself once in so many, else it asks and
	// is answered; the copy to the backup is acknowledged; and an edge that is no
	// holder has its lease acknowledged by the backup, or pushes it there.
	r.Messages = 2*(1-1/nodes) + 2 + 2*(1-2/nodes)
	r.Copies = 2 + (1 - 2/nodes)
	return r, nil
}

// counts are sums over users.
type counts struct {
	owned, held []uint64
	leave, join moved
	took        time.Duration
}

type moved struct {
	owners, holders, bystanders uint64
	at                          []uint64 // copies by the node that gets or gives them
}

// tally places users, with all cores.
func tally(n uint64, c Config, now, without, with *cluster.Plan) counts {
	workers := uint64(runtime.GOMAXPROCS(0))
	parts := make([]counts, workers)
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			p := counts{owned: make([]uint64, c.Nodes), held: make([]uint64, c.Nodes)}
			p.leave.at, p.join.at = make([]uint64, c.Nodes+1), make([]uint64, c.Nodes+1)
			var key []byte
			for i := w; i < n; i += workers {
				// A sample takes users from all over the range.
				key = append(strconv.AppendUint(append(key[:0], "sip:u"...), i*(c.Users/n), 10), "@example.com"...)
				p.place(string(key), c.Nodes, now, without, with)
			}
			parts[w] = p
		})
	}
	group.Wait()
	sum := parts[0]
	for _, p := range parts[1:] {
		sum.add(&p)
	}
	start, times := time.Now(), min(n, 2000)
	for i := range times {
		now.Place("sip:u" + strconv.FormatUint(i, 10) + "@example.com")
	}
	sum.took = time.Since(start) / time.Duration(times)
	return sum
}

func (c *counts) place(key string, nodes int, now, without, with *cluster.Plan) {
	owner, backup := now.Place(key)
	c.owned[owner]++
	c.held[owner]++
	c.held[backup]++
	o, b := without.Place(key)
	c.leave.count(owner, backup, o, b, owner == nodes-1 || backup == nodes-1)
	o, b = with.Place(key)
	c.join.count(o, b, owner, backup, o == nodes || b == nodes)
}

// count compares the holders with the node that comes or goes (o1, b1) and without it (o2, b2).
func (m *moved) count(o1, b1, o2, b2 int, concerned bool) {
	if o1 != o2 {
		m.owners++
	}
	if o1 == o2 && b1 == b2 || o1 == b2 && b1 == o2 {
		return
	}
	// The other node that has a copy on one side only.
	other := o2
	if o2 == o1 || o2 == b1 {
		other = b2
	}
	if other < 0 { // nobody is left to get it
		return
	}
	m.holders++
	if !concerned {
		m.bystanders++
	}
	m.at[other]++
}

func (c *counts) add(o *counts) {
	add := func(a, b []uint64) {
		for i := range a {
			a[i] += b[i]
		}
	}
	add(c.owned, o.owned)
	add(c.held, o.held)
	for _, pair := range [][2]*moved{{&c.leave, &o.leave}, {&c.join, &o.join}} {
		pair[0].owners += pair[1].owners
		pair[0].holders += pair[1].holders
		pair[0].bystanders += pair[1].bystanders
		add(pair[0].at, pair[1].at)
	}
}

func (m *moved) move(n uint64, idealOwners, idealHolders float64) Move {
	most := slices.Max(m.at)
	involved := 0
	for _, at := range m.at {
		if at > 0 {
			involved++
		}
	}
	mean := float64(m.holders) / float64(max(1, involved))
	return Move{
		Owners: float64(m.owners) / float64(n), Holders: float64(m.holders) / float64(n),
		IdealOwners: idealOwners, IdealHolders: idealHolders, Bystanders: m.bystanders, Spread: float64(most) / max(mean, 1e-9),
	}
}

// balance of n placed users with the chance p each, of whole users in all.
func balance(at []uint64, n, whole uint64, p float64) Balance {
	mean := float64(n) * p
	var variance float64
	for _, v := range at {
		variance += (float64(v) - mean) * (float64(v) - mean) / float64(len(at))
	}
	b := Balance{
		Least: float64(slices.Min(at)) / mean, Most: float64(slices.Max(at)) / mean,
		Evenness: variance / (mean * (1 - p)),
	}
	// The largest of k normal values is about sqrt(2 ln k) deviations above the mean.
	wholeMean := float64(whole) * p
	b.WholeMost = 1 + math.Sqrt(2*math.Log(float64(len(at))))*math.Sqrt(b.Evenness*wholeMean*(1-p))/wholeMean
	return b
}

// Report is the result as a document.
func (r *Result) Report(facts []report.Fact) *report.Document {
	c := r.Config
	d := &report.Document{Title: fmt.Sprintf("On paper: %d nodes, %d users", c.Nodes, c.Users), Data: r}
	how := "every user placed"
	if r.Placed < c.Users {
		how = fmt.Sprintf("%d users placed, a sample from all over the range; shares hold for all, least and most are of the sample", r.Placed)
	}
	d.Facts = append(facts, report.Fact{Name: "Placement", Value: "that of package cluster; " + how},
		report.Fact{Name: "One placement", Value: fmt.Sprintf("%v on one core", r.Took)})
	balance := report.Table{Title: "Balance, each node's part over the mean", Columns: []string{"", "least", "most", "variance / chance", "most, all users"},
		Note: "1 in the fourth column is as even as users who choose by chance; the last is what that makes of all users."}
	balance.Add("owned", r.Owned.Least, r.Owned.Most, r.Owned.Evenness, fmt.Sprintf("%.4f", r.Owned.WholeMost))
	balance.Add("held", r.Held.Least, r.Held.Most, r.Held.Evenness, fmt.Sprintf("%.4f", r.Held.WholeMost))
	moves := report.Table{Title: "One node comes or goes", Columns: []string{"", "owner changes", "least possible", "a copy moves", "least possible", "bystanders", "copies in all", "MB in all", "messages", "most at one node / mean, in the sample"},
		Note: fmt.Sprintf("Copies of %.0f bytes, messages of %.0f KiB. All other nodes take part. Bystanders: users who move although the node neither held nor holds them.", c.CopyBytes, c.Bulk/1024)}
	for _, m := range []struct {
		name string
		move Move
	}{{"leaves", r.Leave}, {"joins", r.Join}} {
		copies := m.move.Holders * float64(c.Users)
		moves.Add(m.name, percent(m.move.Owners), percent(m.move.IdealOwners), percent(m.move.Holders), percent(m.move.IdealHolders), m.move.Bystanders,
			copies, copies*c.CopyBytes/1e6, copies*c.CopyBytes/c.Bulk, m.move.Spread)
	}
	perNode := float64(c.Users) / float64(c.Nodes)
	work := report.Table{Title: "Each node", Columns: []string{"", "value"}}
	work.Add("users whose edge it is", perNode)
	work.Add("copies held, as edge, owner or backup", perNode*r.Copies)
	work.Add("memory for them, MB", perNode*r.Copies*c.CopyBytes/1e6)
	work.Add("the same with full copies everywhere, MB", float64(c.Users)*c.CopyBytes/1e6)
	work.Add("CPU to place anew what it holds when members change, s", perNode*r.Copies*r.Took.Seconds())
	register := report.Table{Title: "Messages between nodes per REGISTER", Columns: []string{"", "messages"},
		Note: "Computed from the steps of docs/consistency.md, without riding along; `bench scale` counts them in running nodes."}
	register.Add("Hereis, at most", r.Messages)
	register.Add("each to each, one way (OpenSIPS full sharing)", float64(c.Nodes-1))
	register.Add("each to each, acknowledged (Kamailio DMQ)", 2*float64(c.Nodes-1))
	d.Tables = []report.Table{balance, moves, work, register}
	d.Bench = []report.Bench{{Name: fmt.Sprintf("Place/nodes=%d", c.Nodes), N: r.Placed, Values: []report.Value{
		{Value: float64(r.Took.Nanoseconds()), Unit: "ns/op"}, {Value: r.Held.Evenness, Unit: "variance/chance"}, {Value: r.Join.Holders, Unit: "moved/join"}}}}
	return d
}

func percent(share float64) string { return fmt.Sprintf("%.4f %%", 100*share) }
