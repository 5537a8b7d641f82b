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
	// free has hash.Hash that are not in use.
	free sync.Pool
}

func newMACKey(key []byte) *macKey { return &macKey{key: key} }

// sum appends the MAC of the parts, one after the other, to room.
func (k *macKey) sum(room []byte, parts ...[]byte) []byte {
	h, ok := k.free.Get().(hash.Hash)
	if !ok {
		h = hmac.New(sha256.New, k.key)
	}
	for _, p := range parts {
		h.Write(p)
	}
	room = h.Sum(room)
	h.Reset()
	k.free.Put(h)
	return room
}
