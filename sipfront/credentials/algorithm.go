package credentials

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"strings"
)

// Algorithm is a hash that a digest is made with (RFC 8760 2.1).
type Algorithm uint8

// The algorithms, in the order in which a file has them.
const (
	MD5 Algorithm = iota
	SHA256
	SHA512256
	algorithms = iota
)

// names are as in the IANA registry of HTTP digest algorithms.
var names = [algorithms]string{"MD5", "SHA-256", "SHA-512-256"}

// String is the algorithm's registered name.
func (a Algorithm) String() string {
	if int(a) < len(names) {
		return names[a]
	}
	return fmt.Sprintf("Algorithm(%d)", uint8(a))
}

// ParseAlgorithm reads a registered name, whatever its case (RFC 3261 7.3.1).
func ParseAlgorithm(s string) (Algorithm, error) {
	for i, name := range names {
		if strings.EqualFold(s, name) {
			return Algorithm(i), nil
		}
	}
	return 0, fmt.Errorf("algorithm %q is none of %s", s, strings.Join(names[:], ", "))
}

// ParseAlgorithms reads an order of preference; none may stand in it twice.
func ParseAlgorithms(list []string) (order []Algorithm, err error) {
	var seen Algorithms
	for _, s := range list {
		a, err := ParseAlgorithm(s)
		if err != nil {
			return nil, err
		}
		if seen.Has(a) {
			return nil, fmt.Errorf("algorithm %s is given twice", a)
		}
		seen = seen.with(a)
		order = append(order, a)
	}
	return order, nil
}

// Size is the length of the hash in bytes.
func (a Algorithm) Size() int {
	if a == MD5 {
		return md5.Size
	}
	return sha256.Size
}

// Sum is the hash of text in lower-case hexadecimal: H of RFC 7616 3.
func (a Algorithm) Sum(text string) string {
	switch a {
	case MD5:
		h := md5.Sum([]byte(text))
		return hex.EncodeToString(h[:])
	case SHA256:
		h := sha256.Sum256([]byte(text))
		return hex.EncodeToString(h[:])
	default:
		h := sha512.Sum512_256([]byte(text))
		return hex.EncodeToString(h[:])
	}
}

// HA1 is what stands for a password: H(user ":" realm ":" password) (RFC 7616 3.4.2).
func (a Algorithm) HA1(user, realm, password string) string {
	return a.Sum(user + ":" + realm + ":" + password)
}

// Algorithms is a set of them.
type Algorithms uint8

// Has tells whether an algorithm is in the set.
func (s Algorithms) Has(a Algorithm) bool { return s&(1<<a) != 0 }

func (s Algorithms) with(a Algorithm) Algorithms { return s | 1<<a }
