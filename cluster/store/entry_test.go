package store

import (
	"bytes"
	"testing"

	"hereis/messages"
)

// TestEntries: what is written is read, in order, removals too.
func TestEntries(t *testing.T) {
	var list []byte
	for i, value := range []*messages.Record{record(1), nil, {}} {
		e := append(beginEntry(nil), "key"[:i+1]...)
		var err error
		if value == nil {
			e, err = endEntry(e, nil)
		} else {
			e, err = endEntry(e, value)
		}
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, e...)
	}
	var keys []string
	var removed []bool
	if err := eachEntry(list, func(key, value []byte) {
		keys, removed = append(keys, string(key)), append(removed, value == nil)
	}); err != nil {
		t.Fatal(err)
	}
	if len(keys) != 3 || keys[0] != "k" || keys[1] != "ke" || keys[2] != "key" || removed[0] || !removed[1] || removed[2] {
		t.Errorf("got keys %q, removed %v", keys, removed)
	}
}

// FuzzEntries: any bytes are entries that write the same bytes again, or an error.
func FuzzEntries(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 0, 255, 255, 255, 255, 'k'})
	f.Add([]byte{1, 0, 2, 0, 0, 0, 'k', 'v', 'v'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var again []byte
		err := eachEntry(b, func(key, value []byte) {
			e := append(beginEntry(nil), key...)
			size := uint32(len(value))
			if value == nil {
				size = removal
			}
			again = append(append(again, headed(e, len(key), size)...), value...)
		})
		if err == nil && !bytes.Equal(again, b) {
			t.Errorf("got %x of %x", again, b)
		}
	})
}
