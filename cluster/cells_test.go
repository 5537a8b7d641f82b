package cluster

import (
	"bytes"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// Cells are a map of byte strings, whatever is put and removed, and keep no
// more pages than they need.
func TestCells_AreAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c cells
		want := make(map[uint64][]byte)
		key := rapid.Uint64Range(0, 40)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), bytes.Repeat([]byte{rapid.Byte().Draw(t, "fill")}, rapid.OneOf(
					rapid.IntRange(0, 700), rapid.IntRange(0, 3*cellPage)).Draw(t, "n"))
				copy(c.put(k, len(v)), v)
				want[k] = v
			},
			"write": func(t *rapid.T) {
				if got := c.get(key.Draw(t, "key")); len(got) > 0 {
					got[0]++
				}
			},
			"remove": func(t *rapid.T) {
				k := key.Draw(t, "key")
				c.remove(k)
				delete(want, k)
			},
			"": func(t *rapid.T) { checkCells(t, &c, want) },
		})
		for k := range maps.Clone(want) {
			c.remove(k)
			delete(want, k)
			checkCells(t, &c, want)
		}
		if c.paged != 0 {
			t.Fatalf("%d bytes of pages are left", c.paged)
		}
	})
}

func checkCells(t *rapid.T, c *cells, want map[uint64][]byte) {
	seen, content := 0, 0
	c.each(func(key uint64, got []byte) bool {
		seen++
		content += len(got)
		if w, ok := want[key]; !ok || len(got) != len(w) || len(w) > 1 && !bytes.Equal(got[1:], w[1:]) {
			t.Fatalf("cell %d: got %d bytes, want %d (%t)", key, len(got), len(w), ok)
		}
		return true
	})
	if seen != len(want) || c.len() != len(want) {
		t.Fatalf("got %d cells, %d counted, want %d", seen, c.len(), len(want))
	}
	paged := 0
	for k, w := range want {
		if got := c.get(k); got == nil || len(got) != len(w) {
			t.Fatalf("cell %d: got %d bytes, want %d", k, len(got), len(w))
		}
	}
	slack := 0
	for class := range c.slabs {
		s := &c.slabs[class]
		for _, p := range s.pages {
			paged += cap(p)
		}
		if s.n > 0 {
			slack += max(cellPage, cellSize(class))
		}
	}
	if most := (content+len(want)*(cellHeader+cellStep))*17/16 + slack; paged != c.paged || paged > most {
		t.Fatalf("%d bytes of pages (counted %d), want %d at most", paged, c.paged, most)
	}
	if c.get(1000) != nil {
		t.Fatal("a cell that there is not")
	}
}

// Every length has a class whose cells are hardly larger, and its size is known
// of the class alone.
func TestCells_Classes(t *testing.T) {
	last := 0
	for n := cellHeader; n < 1<<20; n += 1 + n/300 {
		class, size := cellClass(n)
		if size < n || size > n+max(cellStep, n/15) || cellSize(class) != size || class < last {
			t.Fatalf("%d bytes: class %d of %d bytes, which is said to have %d", n, class, size, cellSize(class))
		}
		last = class
	}
}

func BenchmarkCells(b *testing.B) {
	for _, n := range []int{1_000, 1_000_000} {
		b.Run(fmt.Sprintf("Replace/cells=%d", n), func(b *testing.B) {
			var c cells
			for i := range n {
				c.put(uint64(i)*0x9e3779b97f4a7c15, 200+i%100)
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 7919) % n
				key := uint64(i) * 0x9e3779b97f4a7c15
				c.remove(key)
				c.put(key, 200+i%100)
			}
		})
	}
}
