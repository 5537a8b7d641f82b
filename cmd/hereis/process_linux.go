package main

import (
	"os/signal"
	"syscall"
)

// childAttr puts a node in a process group of its own, so that Ctrl-C at the
// terminal reaches dev alone, and has the kernel stop it when dev dies.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// survivePipes lets a node whose dev is gone stop in order: writing its log to
// a broken pipe would kill it.
func survivePipes() { signal.Ignore(syscall.SIGPIPE) }
