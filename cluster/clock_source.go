package cluster

import (
	"time"

	"golang.org/x/sys/unix"
)

// systemClocks are those of this machine.
func systemClocks() clockSource {
	start := time.Now()
	return clockSource{
		now: func() (wall, mono int64) {
			t := time.Now()
			return t.UnixNano() + wallIsOff(), int64(t.Sub(start))
		},
		boot: func() int64 {
			var boot, mono unix.Timespec
			if unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot) != nil || unix.ClockGettime(unix.CLOCK_MONOTONIC, &mono) != nil {
				return int64(time.Since(start))
			}
			return int64(time.Since(start)) + boot.Nano() - mono.Nano()
		},
	}
}
