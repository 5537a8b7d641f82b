// Package metrics reads counters of running nodes from their /metrics pages.
package metrics

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Names of what nodes of Hereis count and the reports use.
const (
	Frames     = "hereis_stream_sent_frames_total"
	Bytes      = "hereis_stream_sent_bytes_total"
	Writes     = "hereis_stream_writes_total"
	SIPOut     = "hereis_transport_messages_out_total"
	Asks       = "hereis_cluster_asks_total"
	Goroutines = "go_goroutines"
	HeapBytes  = "go_memstats_heap_inuse_bytes"
	OpenFiles  = "process_open_fds"
	GCPauses   = "go_gc_duration_seconds_max"
	// GCStops are all stops of the garbage collector, GCShort those of 5 ms at most;
	// GCStopping those that had stopped everything after 5 ms at most.
	GCStops    = "hereis_gc_stop_seconds_count"
	GCShort    = "hereis_gc_stop_seconds_bucket_0.005"
	GCStopping = "hereis_gc_stopping_seconds_bucket_0.005"
)

// Sample is metrics by name, each summed over its labels and over all nodes.
type Sample map[string]float64

// timeout is how long one page may take.
const timeout = 10 * time.Second

// Read sums the pages of all nodes; with no address it is empty.
func Read(ctx context.Context, admins []string) (Sample, error) {
	sum := Sample{}
	for _, addr := range admins {
		if err := sum.addPage(ctx, addr); err != nil {
			return nil, fmt.Errorf("metrics of %s: %w", addr, err)
		}
	}
	return sum, nil
}

func (s Sample) addPage(ctx context.Context, addr string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return s.parse(res.Body)
}

// parse adds a page in Prometheus' text format. A summary's highest quantile
// is kept as NAME_max, as the largest of all nodes, and a histogram's bucket
// up to B as NAME_B.
func (s Sample) parse(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		i := strings.LastIndexByte(line, ' ')
		if i < 0 {
			continue
		}
		v, err := strconv.ParseFloat(line[i+1:], 64)
		if err != nil {
			return fmt.Errorf("line %q: %w", line, err)
		}
		name, labels, _ := strings.Cut(line[:i], "{")
		if strings.Contains(labels, `quantile="1"`) {
			s[name+"_max"] = max(s[name+"_max"], v)
		}
		if _, bound, ok := strings.Cut(labels, `le="`); ok {
			bound, _, _ = strings.Cut(bound, `"`)
			name += "_" + bound
		}
		s[name] += v
	}
	return lines.Err()
}

// Since is what has been added since an earlier sample; gauges may have fallen.
func (s Sample) Since(before Sample) Sample {
	d := Sample{}
	for name, v := range s {
		d[name] = v - before[name]
	}
	return d
}
