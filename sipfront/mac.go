package sipfront

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"
)

// macKey computes HMAC-SHA-256 with one key, over and over: to take in the key
// costs as much as a short message, and so it is done once for many.
type macKey struct {
	key []byte
	// free has *macRoom that are not in use.
	free sync.Pool
}

// macRoom is a hash with room for what goes in and comes out: what a hash is given
// may be anywhere, as the compiler knows, and not on anybody's stack.
type macRoom struct {
	hash    hash.Hash
	in, out []byte
}

func newMACKey(key []byte) *macKey { return &macKey{key: key} }

// sum appends the MAC of the parts, one after the other, to room.
func (k *macKey) sum(room []byte, parts ...[]byte) []byte {
	m, ok := k.free.Get().(*macRoom)
	if !ok {
		m = &macRoom{hash: hmac.New(sha256.New, k.key)}
	}
	m.in = m.in[:0]
	for _, p := range parts {
		m.in = append(m.in, p...)
	}
	m.hash.Write(m.in)
	m.out = m.hash.Sum(m.out[:0])
	room = append(room, m.out...)
	m.hash.Reset()
	k.free.Put(m)
	return room
}
