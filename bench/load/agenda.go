package load

import "time"

// agenda has what is due later, a heap by time. What is moved about in it is
// small and has no pointers, whatever T is: a storm has a million of them.
type agenda[T any] struct {
	// epoch is the time of the first that was added.
	epoch  time.Time
	heap   []entry
	values []T
	free   []int32 // places in values
}

// entry is when, since the epoch, a value is due.
type entry struct {
	at    time.Duration
	value int32
}

func (a *agenda[T]) len() int { return len(a.heap) }

// next is when the first is due; there is one.
func (a *agenda[T]) next() time.Time { return a.epoch.Add(a.heap[0].at) }

// due tells that there is something to be taken now.
func (a *agenda[T]) due(now time.Time) bool {
	return len(a.heap) > 0 && a.heap[0].at <= now.Sub(a.epoch)
}

func (a *agenda[T]) add(at time.Time, value T) {
	if a.epoch.IsZero() {
		a.epoch = at
	}
	var place int32
	if n := len(a.free); n > 0 {
		place, a.free = a.free[n-1], a.free[:n-1]
		a.values[place] = value
	} else {
		place = int32(len(a.values))
		a.values = append(a.values, value)
	}
	a.heap = append(a.heap, entry{at.Sub(a.epoch), place})
	a.up(len(a.heap) - 1)
}

// take removes the first; there is one.
func (a *agenda[T]) take() (value T) {
	place, last := a.heap[0].value, len(a.heap)-1
	a.heap[0] = a.heap[last]
	a.heap = a.heap[:last]
	a.down()
	var zero T
	value, a.values[place] = a.values[place], zero
	a.free = append(a.free, place)
	return value
}

func (a *agenda[T]) up(i int) {
	moved := a.heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if a.heap[parent].at <= moved.at {
			break
		}
		a.heap[i] = a.heap[parent]
		i = parent
	}
	a.heap[i] = moved
}

// down moves the first to its place.
func (a *agenda[T]) down() {
	n := len(a.heap)
	if n < 2 {
		return
	}
	moved, i := a.heap[0], 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && a.heap[child+1].at < a.heap[child].at {
			child++
		}
		if moved.at <= a.heap[child].at {
			break
		}
		a.heap[i] = a.heap[child]
		i = child
	}
	a.heap[i] = moved
}
