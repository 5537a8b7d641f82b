package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func writeFile(t *testing.T, name, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrintConfigNamesTheSourceOfEachValue(t *testing.T) {
	secret := writeFile(t, "secret", "0123456789abcdef0123456789abcdef")
	file := writeFile(t, "hereis.yaml", `
name: from-file
region: from-file
zone: from-file
expires-min: 90s
max-bindings: 5
join: [a.example:7060, b.example:7060]
secret-file: `+secret+`
`)
	environ := []string{
		"HEREIS_REGION=from-env", "HEREIS_ZONE=from-env", "HEREIS_DOMAIN=example.com=a.example,b.example example.org",
		"HEREIS_EXPIRES_JITTER=7", "HEREIS_PPROF=true", "HEREIS_NAME=", "HEREIS_SERVICE_HOST=10.0.0.1", "OTHER=1",
	}
	args := []string{"node", "--config", file, "--print-config", "--zone", "from-flag", "--sip", "10.0.0.1:5060", "--expires-max", "3h"}
	for name, output := range map[string]string{"print-config.txt": "table", "print-config.json": "json"} {
		code, out, errs := call(t, environ, append(args, "-o", output)...)
		if code != exitOK {
			t.Fatalf("%d %s", code, errs)
		}
		out = strings.ReplaceAll(strings.ReplaceAll(out, file, "FILE"), secret, "SECRET")
		if output == "table" {
			// The width of columns follows that of the folder's name.
			lines := strings.Split(out, "\n")
			for i, l := range lines {
				lines[i] = strings.Join(strings.Fields(l), " ")
			}
			out = strings.Join(lines, "\n")
		}
		golden(t, name, out)
	}
}

func TestConfigPrecedence(t *testing.T) {
	file := writeFile(t, "c.yaml", "name: file\nregion: file\nzone: file\n")
	a := &app{environ: []string{"HEREIS_NAME=env", "HEREIS_REGION=env"}, outboundIP: documentationIP}
	s, err := a.loadSettings(file, map[string]any{"name": "flag"})
	if err != nil {
		t.Fatal(err)
	}
	got := [...]string{s.config.Name, s.config.Region, s.config.Zone, s.config.Profile}
	if want := [...]string{"flag", "env", "file", "lan"}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := s.config.Advertise, "192.0.2.7"; got != want {
		t.Errorf("advertise: got %s, want %s", got, want)
	}
}

func TestConfigErrorsNameTheField(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		environ    []string
		args       []string
		want       []string
	}{
		{"unknown keys", "nmae: x\nsip: ['127.0.0.1:5060']\nregistrar: {min: 1}\n", nil, nil, []string{"c.yaml: unknown: nmae, registrar"}},
		{"no YAML", "name: [", nil, nil, []string{"c.yaml"}},
		{"no unit", "expires-min: 60\n", nil, nil, []string{"expires-min", "no unit"}},
		{"no number", "max-bindings: many\n", nil, nil, []string{"max-bindings"}},
		{"source of the wrong value", "profile: moon\n", []string{"HEREIS_BINDING_POLICY=x"}, []string{"--durability=y"}, []string{
			`profile: "moon" is not one of lan, wan (file `, "(env HEREIS_BINDING_POLICY)", "(flag --durability)",
		}},
		{"users missing", "", nil, []string{"--users=/does/not/exist"}, []string{"users: open /does/not/exist"}},
		{"secret missing", "", nil, []string{"--secret-file=/does/not/exist"}, []string{"secret-file: open /does/not/exist"}},
		{"peers without a secret", "", nil, []string{"--cluster=10.0.0.1:7060"}, []string{"cluster: 10.0.0.1:7060 is not loopback", "secret-file"}},
		{"transport", "", nil, []string{"--sip=sctp:10.0.0.1:5060"}, []string{`sip: sctp:10.0.0.1:5060: transport "sctp"`}},
		{"two owners of an alias", "", nil, []string{"--domain=a=c", "--domain=b=C"}, []string{"domain:", "c belongs to a already"}},
		{"order of expiries", "", nil, []string{"--expires-min=2h", "--expires-max=1h"}, []string{"expires-min: 2h0m0s", "expires-max: 1h0m0s", "expires-default"}},
		{"join", "", nil, []string{"--join=example.com"}, []string{`join: "example.com" is not HOST:PORT`}},
		{"unknown flag", "", nil, []string{"--nmae=x"}, []string{"unknown flag --nmae"}},
	} {
		args := append([]string{"node", "--print-config", "--config", writeFile(t, "c.yaml", c.yaml)}, c.args...)
		code, out, errs := call(t, c.environ, args...)
		if code != exitError {
			t.Errorf("%s: exit code %d", c.name, code)
		}
		for _, want := range c.want {
			if !strings.Contains(errs, want) {
				t.Errorf("%s: no %q in %s%s", c.name, want, errs, out)
			}
		}
	}
}

func TestHelpShowsDefaults(t *testing.T) {
	code, out, _ := call(t, nil, "node", "--help")
	for _, want := range []string{"--expires-min=T", "(default 1m0s)", "(default 127.0.0.1:8060)", "The registrar"} {
		if code != exitOK || !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("%d: no %q in %s", code, want, out)
		}
	}
}
