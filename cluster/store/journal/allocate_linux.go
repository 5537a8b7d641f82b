package journal

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Allocate gives a file blocks for its first size bytes and leaves what is in
// it. A file system that cannot is no error: there is no room to be had before.
func Allocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
