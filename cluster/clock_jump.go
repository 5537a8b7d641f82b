//go:build hereis_clockjump

package cluster

import (
	"os"
	"os/signal"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A binary with this tag is for tests, for no process can have a wall clock of
// its own: its wall clock is off by the seconds in WALL_CLOCK_IS_OFF from the
// start, is set an hour ahead by SIGUSR1, and an hour back by SIGUSR2.

var (
	wallOff  atomic.Int64
	wallOnce sync.Once
)

func wallIsOff() int64 {
	wallOnce.Do(func() {
		if s, err := strconv.ParseInt(os.Getenv("WALL_CLOCK_IS_OFF"), 10, 64); err == nil {
			wallOff.Store(s * int64(time.Second))
		}
		signals := make(chan os.Signal, 8)
		signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
		go func() {
			for s := range signals {
				by := int64(time.Hour)
				if s == syscall.SIGUSR2 {
					by = -by
				}
				wallOff.Add(by)
			}
		}()
	})
	return wallOff.Load()
}
