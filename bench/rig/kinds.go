package rig

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"text/template"
)

// The kinds of servers.
const (
	// Hereis keeps registrations in memory only, as the peers do.
	Hereis = "hereis"
	// HereisAsync and HereisSync write them to disk, and wait for it in the second case.
	HereisAsync = "hereis-async"
	HereisSync  = "hereis-sync"
	// Kamailio is as packaged; with several nodes they replicate by dmq_usrloc.
	Kamailio = "kamailio"
	// KamailioFM has the allocator "fm" for shared and private memory, its best.
	KamailioFM = "kamailio-fm"
	// OpenSIPS replicates by its clusterer, in full sharing.
	OpenSIPS = "opensips"
)

//go:embed templates
var templateFiles embed.FS

var templates = template.Must(template.ParseFS(templateFiles, "templates/*"))

// kind is what differs from server to server.
type kind struct {
	// find is the path of the program, or an error that says what to install.
	find func() (string, error)
	// args writes a node's configuration and returns its arguments.
	args func(*Cluster, *Node) ([]string, error)
	env  func(*Cluster) []string
	// admin tells that nodes have Hereis' HTTP API.
	admin bool
}

var kinds = map[string]kind{
	Hereis:      hereisKind("memory"),
	HereisAsync: hereisKind("async"),
	HereisSync:  hereisKind("sync"),
	Kamailio:    kamailioKind(),
	KamailioFM:  kamailioKind("-x", "fm", "-X", "fm"),
	OpenSIPS:    {find: finder("opensips", "OpenSIPS 3.4 or later is needed"), args: openSIPSArgs, env: noEnv},
}

// Kinds are the names of all kinds, sorted.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds)) }

// Installed tells whether a kind's program is found, or why not.
func Installed(name string) error {
	k, ok := kinds[name]
	if !ok {
		return fmt.Errorf("server %q is unknown", name)
	}
	_, err := k.find()
	return err
}

// IsHereis tells that a kind is Hereis itself.
func IsHereis(name string) bool { return kinds[name].admin }

// finder looks in PATH and where Debian puts servers.
func finder(program, hint string) func() (string, error) {
	return func() (string, error) {
		for _, name := range []string{program, "/usr/sbin/" + program, "/usr/local/sbin/" + program} {
			if path, err := exec.LookPath(name); err == nil {
				return path, nil
			}
		}
		return "", fmt.Errorf("%s is not installed: %s", program, hint)
	}
}

func noEnv(*Cluster) []string { return nil }

func hereisKind(durability string) kind {
	return kind{
		find:  func() (string, error) { return "", errors.New("its program is not given") },
		admin: true,
		env:   func(c *Cluster) []string { return []string{"GOMAXPROCS=" + strconv.Itoa(c.Spec.Workers)} },
		args: func(c *Cluster, n *Node) ([]string, error) {
			args := []string{
				"node", "--name", n.Name, "--data", filepath.Join(n.Dir, "data"), "--durability", durability,
				"--sip", n.SIP().String(), "--domain", c.Spec.Domain, "--admin", n.Admin(), "--log-level", "warn",
				"--cluster", fmt.Sprintf("%s:%d", n.Host, gossipPort),
			}
			if first := c.Nodes[0]; first != n {
				args = append(args, "--join", fmt.Sprintf("%s:%d", first.Host, gossipPort))
			}
			if c.Spec.Users != "" {
				args = append(args, "--users", c.Spec.Users)
			}
			return args, nil
		},
	}
}

// kamailioModules are where Debian's package has them, for one architecture or another.
const kamailioModules = "/usr/lib/*/kamailio/modules/usrloc.so"

func kamailioKind(allocator ...string) kind {
	find := finder("kamailio", "apt-get install kamailio kamailio-extra-modules")
	return kind{
		find: find,
		env:  noEnv,
		args: func(c *Cluster, n *Node) ([]string, error) {
			if err := c.write(n, "kamailio.cfg", c.peers(n)); err != nil {
				return nil, err
			}
			args := []string{"-DD", "-E", "-m", "1024", "-M", "16", "-f", "kamailio.cfg", "-Y", n.Dir, "-P", filepath.Join(n.Dir, "pid")}
			if found, _ := filepath.Glob(kamailioModules); len(found) > 0 {
				args = append(args, "-L", filepath.Dir(found[0]))
			}
			return append(args, allocator...), nil
		},
	}
}

func openSIPSArgs(c *Cluster, n *Node) ([]string, error) {
	if err := c.write(n, "opensips.cfg", c.peers(n)); err != nil {
		return nil, err
	}
	return []string{"-F", "-m", "1024", "-M", "16", "-f", "opensips.cfg"}, nil
}

// settings are what a template is filled with.
type settings struct {
	Host, Domain string
	Port         int
	Workers      int
	// Cluster tells that there are several nodes, or may be: then they replicate.
	Cluster bool
	TCP     bool
	// ID counts from 1; First is the address of the node that others ask for the members.
	ID    int
	First string
	// Peers are the other nodes of the cluster, also those that are not started yet.
	Peers   []peer
	BINPort int
}

type peer struct {
	ID   int
	Host string
}

func (c *Cluster) peers(n *Node) settings {
	s := settings{
		Host: n.Host.String(), Port: sipPort, Domain: c.Spec.Domain, Workers: c.Spec.Workers, TCP: c.Spec.TCP,
		Cluster: c.Spec.Nodes > 1, BINPort: binPort, ID: int(n.Host.As4()[3]),
	}
	for id := 1; id <= max(c.Spec.Nodes, len(c.Nodes)); id++ {
		host := n.Host.As4()
		host[3] = byte(id)
		p := peer{ID: id, Host: fmt.Sprintf("%d.%d.%d.%d", host[0], host[1], host[2], host[3])}
		if id == 1 {
			s.First = p.Host
		}
		if id != s.ID {
			s.Peers = append(s.Peers, p)
		}
	}
	return s
}

// write fills a template into the node's folder.
func (c *Cluster) write(n *Node, name string, s settings) error {
	f, err := os.Create(filepath.Join(n.Dir, name))
	if err != nil {
		return err
	}
	return errors.Join(templates.ExecuteTemplate(f, name, s), f.Close())
}
