//go:build !linux

package journal

import "os"

// datasync puts on disk what has been written to f.
func datasync(f *os.File) error { return f.Sync() }
