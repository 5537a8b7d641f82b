package resolve

import (
	"bufio"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// hosts is the host's own table of names (hosts(5)), read again when it has changed.
type hosts struct {
	file string

	mu      sync.Mutex
	checked time.Time
	changed time.Time
	names   map[string][]netip.Addr
}

// lookup returns the addresses of a name in lower case without a final dot.
// localhost and all below it is loopback, whatever the file says (RFC 6761 6.3).
func (h *hosts) lookup(name string) []netip.Addr {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	if h.file == "" {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := time.Now(); h.names == nil || now.Sub(h.checked) > reread {
		h.checked = now
		if info, err := os.Stat(h.file); err == nil && (h.names == nil || info.ModTime() != h.changed) {
			h.changed = info.ModTime()
			h.read()
		}
	}
	return h.names[name]
}

func (h *hosts) read() {
	h.names = map[string][]netip.Addr{}
	f, err := os.Open(h.file)
	if err != nil {
		// A host without the file has no names in it.
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		addr, err := netip.ParseAddr(fields[0])
		if err != nil || addr.Zone() != "" {
			continue
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			h.names[name] = append(h.names[name], addr.Unmap())
		}
	}
}
