package journal

import (
	"errors"
	"fmt"
	"slices"
)

// ErrCorrupt is damage: something that was acknowledged cannot be read.
var ErrCorrupt = errors.New("journal is damaged")

// A use of a file is whole up to its first frame that is not, and what is behind
// that is one of four things, which recovery tells apart by what has a valid
// frame later. At Sync a frame is written only when the one before it is on disk
// and so is the whole use before: such a frame is strict, and finding one proves
// that what is missing before it had been acknowledged.
//
//   - nothing later of this use: the end, or a torn frame of which nobody was told
//   - a strict one: damage
//   - loose ones alone: what a loss of power took, at a level that does not wait
//   - frames of uses that have been released: what the file was before, also in
//     the place of a first frame that power did not let get there
//
// Each first frame also names the use before it and how many frames of that were
// acknowledged; a use that nobody names but the last has none: its file failed.

// use is what one file holds that has not been released.
type use struct {
	seg *segment
	// first is its first frame, or what is known of it by a later one.
	first frame
	ends  []int64 // where each frame ends in the file
	// later is a frame behind those, after something that is none.
	later *frame
}

// scan finds the use in a file's bytes b, nil if there is nothing in it that is
// above released.
func scan(seg *segment, b []byte, released uint64) *use {
	u := &use{seg: seg}
	for at := int64(framing); at < int64(len(b)); {
		fr, payload, ok := parse(b[at:], seg.salt)
		mine := ok && fr.seq == uint32(len(u.ends)) && fr.use > released && (fr.seq == 0 || fr.use == u.first.use)
		if !mine {
			if fr, ok := stray(b[at:], seg.salt, func(fr frame) bool {
				return fr.use > released && (len(u.ends) == 0 || fr.use == u.first.use)
			}); ok {
				u.later = &fr
			}
			break
		}
		if fr.seq == 0 {
			u.first = fr
		}
		at += span(len(payload))
		u.ends = append(u.ends, at)
	}
	if len(u.ends) == 0 {
		if u.later == nil {
			return nil
		}
		u.first = *u.later
	}
	return u
}

// chain orders the uses found: those that count, the oldest first, cut to what
// was acknowledged. lost counts the places where loose frames are missing.
func chain(found []*use, released uint64) (counts []*use, lost int, err error) {
	slices.SortFunc(found, func(a, b *use) int { return int(int64(a.first.use - b.first.use)) })
	for i := len(found) - 1; i >= 0; {
		u := found[i]
		if len(counts) == 0 && u.later != nil { // of an earlier one the next tells how much of it counts
			if u.later.strict() {
				return nil, 0, fmt.Errorf("%w: %s, behind frame %d", ErrCorrupt, u.seg.name, len(u.ends))
			}
			lost++
		}
		counts = append(counts, u)
		if len(u.ends) == 0 { // its first frame is gone, and with it what is before
			i--
			continue
		}
		before, n := u.first.prevUse, int(u.first.prevFrames)
		if before <= released {
			break
		}
		i = slices.IndexFunc(found, func(f *use) bool { return f.first.use == before })
		if i >= 0 && len(found[i].ends) >= n {
			found[i].ends = found[i].ends[:n]
			continue
		}
		if u.first.strict() {
			return nil, 0, fmt.Errorf("%w: %d frames before %s, and not all of them can be read", ErrCorrupt, n, u.seg.name)
		}
		lost++
		if i < 0 {
			i = slices.IndexFunc(found, func(f *use) bool { return f == u }) - 1
		}
	}
	slices.Reverse(counts)
	return slices.DeleteFunc(counts, func(u *use) bool { return len(u.ends) == 0 }), lost, nil
}
