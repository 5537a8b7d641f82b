package store

import (
	"sync"

	"hereis/cluster/store/journal"
)

// put is one that waits to be written.
type put struct {
	done func(error)
	// end is where its entry ends in the group's bytes.
	end int
	// err is why it is not written at all.
	err error
	// seal: nothing is written, and the file of the journal ends here.
	seal bool
}

// group is what is written together: its entries, behind room for a header.
type group struct {
	puts  []put
	bytes []byte
}

func (g *group) add(p put, entry []byte) {
	if len(g.bytes) == 0 {
		g.bytes = append(g.bytes, make([]byte, journal.Head)...)
	}
	g.bytes = append(g.bytes, entry...)
	p.end = len(g.bytes)
	g.puts = append(g.puts, p)
}

// from is the group without its first n, whose entries end a header after byte at.
func (g group) from(n, at int) group {
	if n == len(g.puts) {
		return group{}
	}
	g.puts, g.bytes = g.puts[n:], g.bytes[at:]
	for i := range g.puts {
		g.puts[i].end -= at
	}
	return g
}

// mostSpare is the size in bytes up to which a group's memory is kept for another.
const mostSpare = 1 << 20

// emptied is g's memory, to be filled again.
func (g group) emptied() group {
	if cap(g.bytes) > mostSpare {
		return group{}
	}
	clear(g.puts)
	return group{puts: g.puts[:0], bytes: g.bytes[:0]}
}

// entryBuffers are for entries on their way to a group.
type entryBuffers struct{ free sync.Pool }

type entryBuffer struct{ b []byte }

func (f *entryBuffers) get() *entryBuffer {
	if e, ok := f.free.Get().(*entryBuffer); ok {
		return e
	}
	return &entryBuffer{}
}

// put takes a buffer back, unless it is one of the few large ones.
func (f *entryBuffers) put(e *entryBuffer) {
	if cap(e.b) <= 64<<10 {
		e.b = e.b[:0]
		f.free.Put(e)
	}
}
