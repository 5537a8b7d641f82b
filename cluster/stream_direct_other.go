//go:build !linux

package cluster

import "net"

// direct is nc itself.
func direct(nc net.Conn) net.Conn { return nc }
