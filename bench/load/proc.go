package load

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

// ProcessUse is what a target process and its children used during a phase.
type ProcessUse struct {
	Name string
	PID  int
	// CPU is user and system time.
	CPU time.Duration
	// RSS is resident memory at the end, in bytes; RSSBefore at the beginning.
	RSS, RSSBefore uint64
	// Gone tells that the process ended during the phase; CPU is then too low.
	Gone bool
}

type processStat struct {
	parent int
	cpu    time.Duration
	rss    uint64
}

// meter measures processes between its making and its reading.
type meter struct {
	names  []string
	pids   map[string]int
	before map[string]processStat
}

func newMeter(pids map[string]int) (*meter, error) {
	m := &meter{pids: pids, before: map[string]processStat{}}
	for name, pid := range pids {
		m.names = append(m.names, name)
		use, ok := usage(pid)
		if !ok {
			return nil, fmt.Errorf("pid %s=%d: no such process", name, pid)
		}
		m.before[name] = use
	}
	slices.Sort(m.names)
	return m, nil
}

func (m *meter) read() (uses []ProcessUse) {
	for _, name := range m.names {
		now, ok := usage(m.pids[name])
		was := m.before[name]
		uses = append(uses, ProcessUse{
			Name: name, PID: m.pids[name], CPU: max(0, now.cpu-was.cpu), RSS: now.rss, RSSBefore: was.rss, Gone: !ok,
		})
	}
	return uses
}

// usage sums a process and its living descendants.
func usage(pid int) (sum processStat, ok bool) {
	self, ok := readStat(strconv.Itoa(pid))
	if !ok {
		return sum, false
	}
	all := map[int]processStat{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is well-formed
	for _, dir := range dirs {
		id := filepath.Base(dir)
		if st, ok := readStat(id); ok {
			n, _ := strconv.Atoi(id)
			all[n] = st
		}
	}
	sum = self
	for id, st := range all {
		if id != pid && descends(all, st.parent, pid) {
			sum.cpu += st.cpu
			sum.rss += st.rss
		}
	}
	return sum, true
}

func descends(all map[int]processStat, from, ancestor int) bool {
	for from > 1 && from != ancestor {
		from = all[from].parent
	}
	return from == ancestor
}

// readStat reads proc(5)'s stat: ppid is field 4, utime and stime 14 and 15, rss (in pages) 24.
func readStat(pid string) (st processStat, ok bool) {
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
	st.rss = number(24) * uint64(os.Getpagesize())
	return st, true
}
