package journal

import (
	"os"

	"golang.org/x/sys/unix"
)

// datasync puts on disk what has been written to f. Its size and blocks do not
// change, so there is nothing else of it to be written.
func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
