package cluster_test

import (
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// disk is a Store that survives its process; what is not flushed does not.
type disk struct {
	recs    map[string]*messages.Record
	pending []write
	// delay is how long from now a write takes; nil: it is done with the next step.
	delay func() int64
	// none: nothing is kept, and nobody waits for it.
	none bool
	// async: done is called before the write is.
	async bool
	// err is why it takes no writes now; nil: it does. What an async one has taken it keeps.
	err  error
	last int64
}

// write is a Put that is not durable before at.
type write struct {
	at   int64
	rec  *messages.Record
	done func(error) // nil: it has been called
}

func (d *disk) Keeps() bool { return !d.none }

func (d *disk) Put(rec *messages.Record, done func(error)) {
	if d.none {
		done(nil)
		return
	}
	rec = unshared(rec)
	if d.delay != nil {
		d.last = max(d.last, d.delay())
	}
	if d.async && d.err == nil {
		d.pending = append(d.pending, write{d.last, rec, nil})
		done(nil)
		return
	}
	d.pending = append(d.pending, write{d.last, rec, done})
}

// unshared is a copy that shares no string with what it is of.
func unshared(rec *messages.Record) *messages.Record {
	text, err := proto.Marshal(rec)
	own := &messages.Record{}
	if err = errors.Join(err, proto.Unmarshal(text, own)); err != nil {
		panic(err)
	}
	return own
}

func (d *disk) flush(now int64) {
	for len(d.pending) > 0 && d.pending[0].at <= now {
		p := d.pending[0]
		d.pending = d.pending[1:]
		if d.err != nil && p.done != nil {
			p.done(d.err)
			continue
		}
		if p.rec.Empty() {
			delete(d.recs, p.rec.Aor)
		} else {
			d.recs[p.rec.Aor] = proto.CloneOf(p.rec)
		}
		if p.done != nil {
			p.done(nil)
		}
	}
}

func (d *disk) Load(f func(*messages.Record) error) error {
	var aors []string
	for aor := range d.recs {
		aors = append(aors, aor)
	}
	slices.Sort(aors)
	for _, aor := range aors {
		if err := f(proto.CloneOf(d.recs[aor])); err != nil {
			return err
		}
	}
	return nil
}

func (d *disk) Err() error { return d.err }
