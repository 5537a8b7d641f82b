package journal

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Sealed are the runs that are full, the oldest first. Failed tells that one of
// them should be Released soon, for its file has failed.
func (j *Journal) Sealed() (runs []Run, failed bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.sealed), slices.ContainsFunc(j.sealed, func(r Run) bool { return r.failed })
}

// Due tells that n runs are full, or that one has failed.
func (j *Journal) Due(n int) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.sealed) >= n || slices.ContainsFunc(j.sealed, func(r Run) bool { return r.failed })
}

// Payloads calls f with what each Append of a run wrote, in order. The bytes are in
// scratch, which grows as it must, and are there until it is used again.
func (j *Journal) Payloads(r Run, scratch *[]byte, f func(payload []byte) error) error {
	if r.end <= framing {
		return nil
	}
	*scratch = slices.Grow((*scratch)[:0], int(r.end-framing))[:r.end-framing]
	b := *scratch
	if _, err := r.seg.file.ReadAt(b, framing); err != nil {
		return fmt.Errorf("journal: %s: %w", r.seg.name, err)
	}
	for at := int64(0); at < int64(len(b)); {
		fr, payload, ok := parse(b[at:], r.seg.salt)
		if !ok || fr.use != r.use {
			return fmt.Errorf("journal: %w: %s at %d", ErrCorrupt, r.seg.name, framing+at)
		}
		if err := f(payload); err != nil {
			return err
		}
		at += span(len(payload))
	}
	return nil
}

// Release forgets the oldest runs, to be used when what they hold is durable
// elsewhere. On an error nothing is forgotten.
func (j *Journal) Release(runs []Run) error {
	for _, r := range runs {
		if err := j.release(r); err != nil {
			return fmt.Errorf("journal: release: %w", err)
		}
	}
	return nil
}

func (j *Journal) release(r Run) error {
	j.mu.Lock()
	gone := r.failed || len(j.free) >= j.cfg.Keep
	j.mu.Unlock()
	gone = gone || j.cfg.Room(j.cfg.size) != nil
	// Only when a file that stays knows that r need not be there may it go, or be
	// written over. One that has failed is asked to remember nothing.
	if err := j.note(r, gone); err != nil {
		return err
	}
	j.mu.Lock()
	j.sealed = slices.DeleteFunc(j.sealed, func(s Run) bool { return s.use == r.use })
	if gone {
		j.count--
	} else {
		j.free = append(j.free, r.seg)
	}
	j.mu.Unlock()
	j.bytes.Add(framing - r.end)
	if gone {
		return errors.Join(r.seg.file.Close(), j.cfg.folder.remove(r.seg.name))
	}
	return nil
}

// note marks r as released: in its own file, or in another if that one is gone soon.
//
// No file is marked that the appender may use meanwhile: an error of the disk is
// told once, and to whom it does not concern.
func (j *Journal) note(r Run, elsewhere bool) error {
	if !elsewhere {
		err := r.seg.mark(r.use)
		if err != nil {
			j.mu.Lock()
			defer j.mu.Unlock()
			for i := range j.sealed {
				j.sealed[i].failed = j.sealed[i].failed || j.sealed[i].seg == r.seg
			}
		}
		return err
	}
	keeper, err := j.keeper()
	if err != nil {
		return err
	}
	err = keeper.mark(r.use)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.count-- // its earlier marks still count, and so it stays in the folder
		return errors.Join(err, keeper.file.Close())
	}
	j.free = append(j.free, keeper)
	return nil
}

// keeper is a file that is not in use, taken out of those.
func (j *Journal) keeper() (*segment, error) {
	j.mu.Lock()
	if len(j.free) > 0 {
		defer j.mu.Unlock()
		keeper := j.free[0]
		j.free = j.free[1:]
		return keeper, nil
	}
	j.mu.Unlock()
	return j.make(math.MaxInt)
}
