package rig

import "runtime"

// runStarter does jobs on a thread of its own for as long as the process lives.
func runStarter(jobs <-chan func()) {
	runtime.LockOSThread()
	for job := range jobs {
		job()
	}
}
