package transport

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
)

// STUN as RFC 5626 4.4.2 uses it on the SIP port: a binding request (RFC 5389)
// is answered with the address it came from. Its first two bits are zero, which
// no SIP message's are.
const (
	stunHeader        = 20
	stunMagic         = 0x2112A442
	stunBinding       = 0x0001
	stunSuccess       = 0x0101
	stunFailure       = 0x0111
	stunXORMapped     = 0x0020
	stunErrorCode     = 0x0009
	stunUnknown       = 0x000A
	stunFingerprint   = 0x8028
	stunFingerprintXR = 0x5354554e
)

func isSTUN(b []byte) bool {
	return len(b) >= stunHeader && b[0]&0xC0 == 0 && binary.BigEndian.Uint32(b[4:]) == stunMagic
}

// answerSTUN appends the answer to the binding request b, or nothing if b is
// another or a broken message (those are ignored: RFC 5389 7.3).
func answerSTUN(out, b []byte, from netip.AddrPort) []byte {
	if binary.BigEndian.Uint16(b) != stunBinding || int(binary.BigEndian.Uint16(b[2:]))+stunHeader != len(b) || len(b)%4 != 0 {
		return out
	}
	unknown, fingerprint, ok := stunAttributes(b)
	if !ok {
		return out
	}
	start := len(out)
	out = append(out, b[:stunHeader]...)
	if unknown != 0 {
		// 7.3.1: an attribute that must be understood and is not.
		binary.BigEndian.PutUint16(out[start:], stunFailure)
		out = append(out, 0, stunErrorCode, 0, 21, 0, 0, 4, 20)
		out = append(out, "Unknown Attribute\x00\x00\x00"...)
		out = append(out, 0, stunUnknown, 0, 2, byte(unknown>>8), byte(unknown), 0, 0)
	} else {
		binary.BigEndian.PutUint16(out[start:], stunSuccess)
		out = xorMapped(out, out[start+4:start+stunHeader], from)
	}
	if !fingerprint {
		binary.BigEndian.PutUint16(out[start+2:], uint16(len(out)-start-stunHeader))
		return out
	}
	binary.BigEndian.PutUint16(out[start+2:], uint16(len(out)-start-stunHeader+8))
	sum := crc32.ChecksumIEEE(out[start:]) ^ stunFingerprintXR
	out = append(out, stunFingerprint>>8, stunFingerprint&0xff, 0, 4)
	return binary.BigEndian.AppendUint32(out, sum)
}

// stunAttributes returns the first attribute that must be understood and is
// not, and whether the last is FINGERPRINT.
func stunAttributes(b []byte) (unknown uint16, fingerprint, ok bool) {
	for at := stunHeader; at < len(b); {
		if at+4 > len(b) {
			return 0, false, false
		}
		kind, n := binary.BigEndian.Uint16(b[at:]), int(binary.BigEndian.Uint16(b[at+2:]))
		if kind == stunFingerprint {
			if n != 4 || at+8 != len(b) || binary.BigEndian.Uint32(b[at+4:]) != crc32.ChecksumIEEE(b[:at])^stunFingerprintXR {
				return 0, false, false
			}
			fingerprint = true
		}
		// USERNAME, MESSAGE-INTEGRITY, REALM and NONCE mean something only to a
		// server that asked for credentials; this one never does.
		if kind < 0x8000 && unknown == 0 && kind != 0x0006 && kind != 0x0008 && kind != 0x0014 && kind != 0x0015 {
			unknown = kind
		}
		at += 4 + (n+3)&^3
		if at > len(b) {
			return 0, false, false
		}
	}
	return unknown, fingerprint, true
}

// xorMapped appends XOR-MAPPED-ADDRESS (15.2); cookie is the magic cookie with the transaction id.
func xorMapped(out, cookie []byte, from netip.AddrPort) []byte {
	var key [16]byte
	copy(key[:], cookie)
	addr := from.Addr().AsSlice()
	family := byte(1)
	if len(addr) == 16 {
		family = 2
	}
	out = append(out, 0, stunXORMapped, 0, byte(4+len(addr)), 0, family)
	out = binary.BigEndian.AppendUint16(out, from.Port()^(stunMagic>>16))
	for i, c := range addr {
		out = append(out, c^key[i])
	}
	return out
}
