package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"hereis/messages"
)

// An entry is one Put as the journal has it, little-endian:
//
//	0  size of the key, u16
//	2  size of the value, u32; all ones: the key is removed
//	6  key (keys.go), value
const (
	entryHead = 6
	removal   = 1<<32 - 1
)

const (
	// maxKey and maxValue are what Badger takes, in bytes.
	maxKey   = 65000
	maxValue = 2 << 20
)

var (
	errTooLarge = errors.New("record too large")
	errEntries  = errors.New("no list of entries")
)

// beginEntry is b and room for the head of an entry; the key is to follow.
func beginEntry(b []byte) []byte { return append(b, make([]byte, entryHead)...) }

// endEntry adds the value to the entry that b consists of, up to the end of its
// key; nil removes the key.
func endEntry(b []byte, value proto.Message) ([]byte, error) {
	key := len(b) - entryHead
	size := uint32(removal)
	if value != nil {
		var err error
		if r, ok := value.(*messages.Record); ok {
			b, err = r.AppendTo(b) // nearly all are
		} else {
			b, err = proto.MarshalOptions{}.MarshalAppend(b, value)
		}
		if err != nil {
			return b, fmt.Errorf("store: key %.100q: %w", b[entryHead:entryHead+key], err)
		}
		size = uint32(len(b) - entryHead - key)
	}
	if key > maxKey || size != removal && size > maxValue {
		return b, fmt.Errorf("store: key %.100q: %w: %d bytes under a key of %d", b[entryHead:entryHead+key], errTooLarge, size, key)
	}
	return headed(b, key, size), nil
}

// headed is the entry b with its head.
func headed(b []byte, key int, value uint32) []byte {
	binary.LittleEndian.PutUint16(b, uint16(key))
	binary.LittleEndian.PutUint32(b[2:], value)
	return b
}

// eachEntry calls f for each entry in b; value is nil if the key is removed.
func eachEntry(b []byte, f func(key, value []byte)) error {
	for len(b) > 0 {
		if len(b) < entryHead {
			return errEntries
		}
		key, size := int(binary.LittleEndian.Uint16(b)), binary.LittleEndian.Uint32(b[2:])
		b = b[entryHead:]
		removed := size == removal
		if removed {
			size = 0
		}
		if int64(len(b)) < int64(key)+int64(size) {
			return errEntries
		}
		value := b[key : key+int(size) : key+int(size)]
		if removed {
			value = nil
		}
		f(b[:key:key], value)
		b = b[key+int(size):]
	}
	return nil
}
