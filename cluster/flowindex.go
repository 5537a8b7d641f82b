package cluster

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"hereis/messages"
)

// fewAoRs is up to how many AoRs of one flow are a list: a device has one or
// two, and a list of them costs a tenth of a map. A trunk has a hundred
// thousand.
const fewAoRs = 8

// flowKey names a flow of this node.
type flowKey struct{ incarnation, counter uint64 }

func keyOf(f *messages.FlowID) flowKey { return flowKey{f.GetIncarnation(), f.GetCounter()} }

// flowIndex finds the AoRs registered over a connection of this node. It may
// name some that have moved away since; it never misses one. What is registered
// over a datagram flow is not in it: nothing tells that such a flow is over.
type flowIndex struct {
	mu   sync.Mutex
	aors map[flowKey]*flowAoRs
}

// flowAoRs are those of one flow: few, or many if that is not nil.
type flowAoRs struct {
	few  []string
	many map[string]struct{}
}

func (x *flowIndex) add(f *messages.FlowID, aor string) {
	if !f.GetStream() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	on := x.aors[keyOf(f)]
	if on == nil {
		on = &flowAoRs{}
		x.aors[keyOf(f)] = on
	}
	switch {
	case on.many != nil:
		if _, known := on.many[aor]; !known {
			on.many[strings.Clone(aor)] = struct{}{}
		}
	case slices.Contains(on.few, aor):
	case len(on.few) < fewAoRs:
		on.few = append(on.few, strings.Clone(aor)) // which may be a part of a whole message
	default:
		on.many = make(map[string]struct{}, 4*fewAoRs)
		for _, a := range on.few {
			on.many[a] = struct{}{}
		}
		on.many[strings.Clone(aor)], on.few = struct{}{}, nil
	}
}

func (x *flowIndex) remove(f *messages.FlowID, aor string) {
	if !f.GetStream() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	on := x.aors[keyOf(f)]
	if on == nil {
		return
	}
	if on.many != nil {
		delete(on.many, aor)
	} else if i := slices.Index(on.few, aor); i >= 0 {
		on.few = slices.Delete(on.few, i, i+1)
	}
	if len(on.few)+len(on.many) == 0 {
		delete(x.aors, keyOf(f))
	}
}

// on lists the AoRs of a flow; many of them in the order of their names, so
// that a simulation repeats itself.
func (x *flowIndex) on(f *messages.FlowID) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	on := x.aors[keyOf(f)]
	switch {
	case on == nil:
		return nil
	case on.many != nil:
		return slices.Sorted(maps.Keys(on.many))
	}
	return slices.Clone(on.few)
}
