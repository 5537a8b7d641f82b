package journal

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// Head is the size in bytes of the header before a payload. Whoever appends
// leaves room for it.
const Head = 40

// align is what offsets of frames are multiples of, in bytes.
const align = 8

// frame is a header. Its bytes, little-endian:
//
//	 0  magic       the file's: half of its salt
//	 4  sum         CRC-32C of the file's salt, and of all that follows
//	 8  size        bytes of payload
//	12  flags
//	16  use         which use of a file this is; each has a number of its own, and they rise
//	24  seq         which frame of its use this is, from 0
//	28  prevFrames  how many frames were acknowledged of the use before
//	32  prevUse     the use before that had any, 0: there is none
//
// The salt is random and told to nobody: no payload can hold what looks like a
// frame, or like the beginning of many, whoever wrote it.
type frame struct {
	size, flags uint32
	use         uint64
	seq         uint32
	prevFrames  uint32
	prevUse     uint64
}

// loose marks a frame that was written before those before it were on disk: after
// a loss of power it may be there and they may not.
const loose = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// strict tells that all that was acknowledged before this frame was on disk first.
func (fr frame) strict() bool { return fr.flags&loose == 0 }

// span is the size in bytes of a frame in its file with so much payload.
func span(payload int) int64 { return (Head + int64(payload) + align - 1) / align * align }

// seal writes the header into the room that buf has for it, before its payload.
func (fr frame) seal(buf []byte, salt uint64) {
	le := binary.LittleEndian
	le.PutUint32(buf, uint32(salt))
	le.PutUint32(buf[8:], fr.size)
	le.PutUint32(buf[12:], fr.flags)
	le.PutUint64(buf[16:], fr.use)
	le.PutUint32(buf[24:], fr.seq)
	le.PutUint32(buf[28:], fr.prevFrames)
	le.PutUint64(buf[32:], fr.prevUse)
	le.PutUint32(buf[4:], sum(buf[8:], salt))
}

func sum(b []byte, salt uint64) uint32 {
	var s [8]byte
	binary.LittleEndian.PutUint64(s[:], salt)
	return crc32.Update(crc32.Checksum(s[:], castagnoli), castagnoli, b)
}

// parse reads the frame that b begins with, if there is a whole one.
func parse(b []byte, salt uint64) (fr frame, payload []byte, ok bool) {
	le := binary.LittleEndian
	if len(b) < Head || le.Uint32(b) != uint32(salt) {
		return frame{}, nil, false
	}
	fr = frame{
		size: le.Uint32(b[8:]), flags: le.Uint32(b[12:]), use: le.Uint64(b[16:]), seq: le.Uint32(b[24:]),
		prevFrames: le.Uint32(b[28:]), prevUse: le.Uint64(b[32:]),
	}
	end := Head + int64(fr.size)
	if end > int64(len(b)) || le.Uint32(b[4:]) != sum(b[8:end], salt) {
		return frame{}, nil, false
	}
	return fr, b[Head:end], true
}

// stray is the first frame in b that is accepted, wherever it begins.
func stray(b []byte, salt uint64, accepted func(frame) bool) (frame, bool) {
	magic := binary.LittleEndian.AppendUint32(nil, uint32(salt))
	for at := 0; at < len(b); at += align {
		i := bytes.Index(b[at:], magic)
		if i < 0 {
			return frame{}, false
		}
		if at += i; at%align != 0 {
			at = at / align * align
			continue
		}
		if fr, _, ok := parse(b[at:], salt); ok && accepted(fr) {
			return fr, true
		}
	}
	return frame{}, false
}
