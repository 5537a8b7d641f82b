// Package proc reads what processes use from Linux' /proc: CPU time and
// resident memory of a process with its living descendants, so that a server
// of many processes (Kamailio, OpenSIPS) is counted like one of many threads.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// clockTick is Linux' USER_HZ, in which /proc gives CPU time.
const clockTick = 10 * time.Millisecond

// Use is what a process and its descendants have used so far.
type Use struct {
	// CPU is user and system time.
	CPU time.Duration
	// RSS is resident memory in bytes. What processes share is counted once:
	// the private pages of each and the largest shared part of any.
	RSS uint64
}

type stat struct {
	parent int
	cpu    time.Duration
	rss    uint64
	shared uint64
}

// Table is one look at all processes.
type Table map[int]stat

// Snapshot reads the table.
func Snapshot() Table {
	t := Table{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range dirs {
		id := filepath.Base(dir)
		if st, ok := readStat(id); ok {
			n, _ := strconv.Atoi(id)
			t[n] = st
		}
	}
	return t
}

// Tree sums a process and its descendants; ok is false if the process is gone.
func (t Table) Tree(pid int) (sum Use, ok bool) {
	if _, ok := t[pid]; !ok {
		return sum, false
	}
	var shared uint64
	for id, st := range t {
		if id != pid && !t.descends(st.parent, pid) {
			continue
		}
		sum.CPU += st.cpu
		sum.RSS += st.rss - min(st.rss, st.shared)
		shared = max(shared, st.shared)
	}
	sum.RSS += shared
	return sum, true
}

func (t Table) descends(from, ancestor int) bool {
	for from > 1 && from != ancestor {
		from = t[from].parent
	}
	return from == ancestor
}

// readStat reads proc(5)'s stat (ppid is field 4, utime and stime 14 and 15) and statm.
func readStat(pid string) (st stat, ok bool) {
	b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return st, false
	}
	// The command in parentheses may hold anything, so count from its end.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 22 {
		return st, false
	}
	number := func(field int) uint64 {
		n, _ := strconv.ParseUint(string(fields[field-3]), 10, 64) // kernel's own number
		return n
	}
	st.parent = int(number(4))
	st.cpu = time.Duration(number(14)+number(15)) * clockTick
	page := uint64(os.Getpagesize())
	st.rss = number(24) * page
	var size, resident, shared uint64
	if b, err = os.ReadFile(filepath.Join("/proc", pid, "statm")); err == nil {
		if _, err := fmt.Sscan(string(b), &size, &resident, &shared); err == nil {
			st.rss, st.shared = resident*page, shared*page
		}
	}
	return st, true
}

// Measured is what a target process and its descendants used between two looks.
type Measured struct {
	Name string
	PID  int
	CPU  time.Duration
	// RSS is resident memory at the end, in bytes; RSSBefore at the beginning.
	RSS, RSSBefore uint64
	// Gone tells that the process ended meanwhile; CPU is then too low.
	Gone bool
}

// Meter measures processes between its making and its reading.
type Meter struct {
	names  []string
	pids   map[string]int
	before map[string]Use
}

// NewMeter begins to measure processes, by the names under which they are reported.
func NewMeter(pids map[string]int) (*Meter, error) {
	m := &Meter{pids: pids, before: map[string]Use{}}
	if len(pids) == 0 {
		return m, nil
	}
	table := Snapshot()
	for name, pid := range pids {
		m.names = append(m.names, name)
		use, ok := table.Tree(pid)
		if !ok {
			return nil, fmt.Errorf("pid %s=%d: no such process", name, pid)
		}
		m.before[name] = use
	}
	slices.Sort(m.names)
	return m, nil
}

// Read tells what the processes have used since NewMeter, in the order of their names.
func (m *Meter) Read() (uses []Measured) {
	if len(m.names) == 0 {
		return nil
	}
	table := Snapshot()
	for _, name := range m.names {
		now, ok := table.Tree(m.pids[name])
		was := m.before[name]
		uses = append(uses, Measured{
			Name: name, PID: m.pids[name], CPU: max(0, now.CPU-was.CPU), RSS: now.RSS, RSSBefore: was.RSS, Gone: !ok,
		})
	}
	return uses
}
