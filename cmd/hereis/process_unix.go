//go:build unix && !linux

package main

import (
	"os/signal"
	"syscall"
)

// childAttr puts a node in a process group of its own, so that Ctrl-C at the
// terminal reaches dev alone. When dev dies, the node's stdin ends.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// survivePipes lets a node whose dev is gone stop in order: writing its log to
// a broken pipe would kill it.
func survivePipes() { signal.Ignore(syscall.SIGPIPE) }
