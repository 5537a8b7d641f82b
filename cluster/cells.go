package cluster

import (
	"encoding/binary"
	"math/bits"
)

// cells keep byte strings by 64-bit keys, with no pointer for any of them: a
// million cost the garbage collector no more than a few thousand pages do.
//
// Strings of about one size are a slab: cells side by side in pages. They are
// dense: where one is removed, the last takes its place. So nothing is ever
// fragmented, and beside what is kept there is at most a part of one page for
// each size in use.
type cells struct {
	at    map[uint64]spot
	slabs []slab // by class
	// paged is the memory of all pages.
	paged int
}

// spot is where a cell is.
type spot struct{ class, index uint32 }

// slab has the cells of one size.
type slab struct {
	n     int
	pages [][]byte
}

const (
	// cellPage is about the size of a page; a cell that is larger is a page of its own.
	cellPage = 16 << 10
	// cellHeader is a cell's key and the length of its content.
	cellHeader = 8 + 4
	// evenCells is up to which size cells come in steps of cellStep; above it in
	// steps of a sixteenth of the power of two below.
	evenCells, cellStep = 256, 16
)

// cellClass is the class of cells that n bytes fit into, and their size.
func cellClass(n int) (class, size int) {
	if n <= evenCells {
		class = max(1, (n+cellStep-1)/cellStep)
		return class, class * cellStep
	}
	shift := bits.Len(uint(n-1)) - 5 // n is in (16<<shift, 32<<shift]
	steps := (n + 1<<shift - 1) >> shift
	return evenCells/cellStep*(shift-3) + steps - 16, steps << shift
}

func (c *cells) len() int { return len(c.at) }

// get is the content of a cell, nil if there is none. It may be written to, and
// is valid until the next put or remove.
func (c *cells) get(key uint64) []byte {
	at, ok := c.at[key]
	if !ok {
		return nil
	}
	_, content := open(c.cell(at))
	return content
}

// put makes the cell of key have n bytes, and returns them to be written: they
// are anything.
func (c *cells) put(key uint64, n int) []byte {
	class, size := cellClass(n + cellHeader)
	at, ok := c.at[key]
	if !ok || int(at.class) != class {
		if ok {
			c.free(at)
		}
		at = c.make(class, size)
		if c.at == nil {
			c.at = make(map[uint64]spot)
		}
		c.at[key] = at
	}
	cell := c.cell(at)
	binary.LittleEndian.PutUint64(cell, key)
	binary.LittleEndian.PutUint32(cell[8:], uint32(n))
	return cell[cellHeader : cellHeader+n : cellHeader+n]
}

// remove forgets a cell.
func (c *cells) remove(key uint64) {
	if at, ok := c.at[key]; ok {
		delete(c.at, key)
		c.free(at)
	}
}

// each calls f for every cell until it returns false. f must not put or remove.
func (c *cells) each(f func(key uint64, content []byte) bool) {
	for class := range c.slabs {
		size := cellSize(class)
		for _, page := range c.slabs[class].pages {
			for ; len(page) > 0; page = page[size:] {
				if !f(open(page[:size])) {
					return
				}
			}
		}
	}
}

// open is what a cell has.
func open(cell []byte) (key uint64, content []byte) {
	n := cellHeader + int(binary.LittleEndian.Uint32(cell[8:]))
	return binary.LittleEndian.Uint64(cell), cell[cellHeader:n:n]
}

// cellSize is the size of a class's cells.
func cellSize(class int) int {
	if class <= evenCells/cellStep {
		return class * cellStep
	}
	above := class - 1
	return (16 + above%16 + 1) << (above/16 + 3)
}

// perPage is how many cells of a size a page has.
func perPage(size int) int { return max(1, cellPage/size) }

func (c *cells) cell(at spot) []byte {
	size := cellSize(int(at.class))
	each := perPage(size)
	begin := int(at.index) % each * size
	return c.slabs[at.class].pages[int(at.index)/each][begin : begin+size]
}

// make adds a cell at the end of its slab. A slab's last page grows to its size
// by doubling, so that a slab with few cells is small.
func (c *cells) make(class, size int) spot {
	for len(c.slabs) <= class {
		c.slabs = append(c.slabs, slab{})
	}
	s := &c.slabs[class]
	each := perPage(size)
	if s.n == len(s.pages)*each {
		s.pages = append(s.pages, nil)
	}
	page := &s.pages[len(s.pages)-1]
	used := len(*page)
	if used+size > cap(*page) {
		grown := make([]byte, used, min(max(2*used, size), each*size))
		copy(grown, *page)
		c.paged += cap(grown) - cap(*page)
		*page = grown
	}
	*page = (*page)[:used+size]
	s.n++
	return spot{uint32(class), uint32(s.n - 1)}
}

// free gives a cell's place to the last of its slab.
func (c *cells) free(at spot) {
	s := &c.slabs[at.class]
	last := spot{at.class, uint32(s.n - 1)}
	if at != last {
		moved := c.cell(last)
		copy(c.cell(at), moved)
		key, _ := open(moved)
		c.at[key] = at
	}
	s.n--
	page := &s.pages[len(s.pages)-1]
	*page = (*page)[:len(*page)-cellSize(int(at.class))]
	if len(*page) == 0 {
		c.paged -= cap(*page)
		*page = nil
		s.pages = s.pages[:len(s.pages)-1]
	}
}
