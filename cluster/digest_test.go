package cluster

import (
	"math/rand/v2"
	"testing"

	"hereis/messages"
)

// Of many records a few differ: however finely the two sides have summed up
// theirs, all of these are in the parts that are named, and not many others.
func TestRule10_PartsNameWhatDiffersAndLittleElse(t *testing.T) {
	const records, different = 40_000, 300
	r := rand.New(rand.NewPCG(3, 4))
	keys := make([]uint64, records)
	for i := range keys {
		keys[i] = r.Uint64()
	}
	sum := func(width int, seed uint64) []uint64 {
		of := make([]uint64, width)
		for i, key := range keys {
			h := score(key, 1)
			if i < different {
				h = score(key, seed)
			}
			of[key%uint64(width)] += h
		}
		return of
	}
	for _, widths := range [][2]int{{1 << 14, 1 << 14}, {1 << 13, 1 << 15}, {1 << 16, 1 << 12}, {1 << 15, 1 << 11}} {
		a, b := sum(widths[0], 5), sum(widths[1], 6)
		buckets, of := differing(b, fold(a, digestBuckets))
		m := &messages.Differs{Buckets: buckets, Of: uint32(of), Fine: uint32(len(b)), Sums: parts(b, buckets, of)}
		named, size, ok := differingParts(a, m)
		if !ok {
			t.Fatalf("%v: parts are refused", widths)
		}
		in := make(map[uint64]bool)
		for _, i := range named {
			in[uint64(i)] = true
		}
		others := 0
		for i, key := range keys {
			switch is := in[key%uint64(size)]; {
			case i < different && !is:
				t.Fatalf("%v: record %d differs and is in no part that is named", widths, i)
			case i >= different && is:
				others++
			}
		}
		if most := different * (records/size + 1) * 2; others > most {
			t.Errorf("%v: %d others are named too, want %d at most", widths, others, most)
		}
	}
}

func TestRule10_PartsThatMakeNoSenseAreRefused(t *testing.T) {
	mine := make([]uint64, 64)
	for _, m := range []*messages.Differs{
		{Of: 0, Fine: 64},
		{Of: 16, Fine: 8},
		{Of: 16, Fine: 40, Buckets: []uint32{1}, Sums: []uint64{1, 2}},
		{Of: 16, Fine: 64, Buckets: []uint32{1}, Sums: []uint64{1, 2}},
		{Of: 3, Fine: 1 << 30},
		{Of: 24, Fine: 48, Buckets: []uint32{1}, Sums: []uint64{1, 2}},
	} {
		if _, _, ok := differingParts(mine, m); ok {
			t.Errorf("%v is taken", m)
		}
	}
	// Buckets that there are not lead nowhere, and to no panic.
	if _, _, ok := differingParts(mine, &messages.Differs{Of: 16, Fine: 64, Buckets: []uint32{1 << 31}, Sums: []uint64{1, 2, 3, 4}}); !ok {
		t.Error("a bucket out of range is refused, want it to be compared with nothing")
	}
}
