package actors

import (
	"encoding/base64"
	"encoding/binary"
	"slices"

	"github.com/zeebo/xxh3"
)

// Cursor is a position in the events of a pattern, which every node of the
// cluster understands: the node that gave it knows exactly what came after it,
// any other can tell who may have changed since.
type Cursor struct {
	// Feed and Seq are of the feed that gave it.
	Feed, Seq uint64
	// MS is the node time up to which all that had reached the node was told; 0
	// if nobody but the feed knows the way from here.
	MS int64
	// Pattern is the pattern's hash.
	Pattern uint32
	// Edges are hashes of the edges that were within reach, with their
	// incarnations, sorted.
	Edges []uint32
}

// within tells whether all edges that were within reach are so now: otherwise
// there may be users of whom only those on the other side of a cut know.
func (c *Cursor) within(live map[string]uint64) bool {
	now := edgeHashes(live)
	for _, e := range c.Edges {
		if _, found := slices.BinarySearch(now, e); !found {
			return false
		}
	}
	return true
}

// cursorVersion is the first byte of a cursor.
const cursorVersion = 1

// String is the cursor as text, for URLs and headers.
func (c *Cursor) String() string {
	b := []byte{cursorVersion}
	b = binary.BigEndian.AppendUint64(b, c.Feed)
	b = binary.BigEndian.AppendUint32(b, c.Pattern)
	b = binary.AppendUvarint(b, c.Seq)
	b = binary.AppendVarint(b, c.MS)
	for _, e := range c.Edges {
		b = binary.BigEndian.AppendUint32(b, e)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ParseCursor reads what String wrote; false if it is none of ours, or of a
// release that this one does not know.
func ParseCursor(s string) (*Cursor, bool) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 13 || b[0] != cursorVersion {
		return nil, false
	}
	c := &Cursor{Feed: binary.BigEndian.Uint64(b[1:]), Pattern: binary.BigEndian.Uint32(b[9:])}
	b = b[13:]
	var n int
	if c.Seq, n = binary.Uvarint(b); n <= 0 {
		return nil, false
	}
	b = b[n:]
	if c.MS, n = binary.Varint(b); n <= 0 || len(b[n:])%4 != 0 {
		return nil, false
	}
	for b = b[n:]; len(b) > 0; b = b[4:] {
		c.Edges = append(c.Edges, binary.BigEndian.Uint32(b))
	}
	return c, true
}

// reach tells whether an edge was within reach in this incarnation.
func (c *Cursor) reach(edge string, incarnation uint64) bool {
	_, found := slices.BinarySearch(c.Edges, edgeHash(edge, incarnation))
	return found
}

func edgeHash(edge string, incarnation uint64) uint32 {
	return uint32(xxh3.Hash(binary.BigEndian.AppendUint64([]byte(edge), incarnation)))
}

func edgeHashes(live map[string]uint64) []uint32 {
	hashes := make([]uint32, 0, len(live))
	for name, incarnation := range live {
		hashes = append(hashes, edgeHash(name, incarnation))
	}
	slices.Sort(hashes)
	return hashes
}

func patternHash(pattern string) uint32 { return uint32(xxh3.HashString(pattern)) }
