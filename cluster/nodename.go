package cluster

import (
	"errors"
	"fmt"
)

// maxName bounds a node's name, in bytes, so that its metadata fits gossip.
const maxName = 64

// ErrName is wrapped by the error of a name that no node can have.
var ErrName = errors.New("node name")

// CheckName tells whether a node may have that name: 1 to 64 of letters,
// digits, '.', '_' and '-', so that it can stand in a host name, a URI and a
// metric as it is.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w %q: has %d bytes; 1 to %d are allowed", ErrName, name, len(name), maxName)
	}
	for i := range len(name) {
		switch b := name[i]; {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '.', b == '_', b == '-':
		default:
			return fmt.Errorf("%w %q: byte %q is not allowed", ErrName, name, b)
		}
	}
	return nil
}
