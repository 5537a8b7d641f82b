package hereis

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func validConfig() Config {
	c := DefaultConfig()
	c.SIP = []string{"127.0.0.1:5060"}
	c.Derive()
	return c
}

func TestConfigDerive(t *testing.T) {
	for _, c := range []struct {
		name                                                string
		change                                              func(*Config)
		advertise, domain, cluster, clusterStream, clusterR string
	}{
		{"all from the SIP address", func(c *Config) { c.SIP = []string{"udp:10.0.0.1:5070"} },
			"10.0.0.1:5070", "10.0.0.1", "127.0.0.1:7060", "127.0.0.1:7061", "127.0.0.1:7062"},
		{"a secret opens the cluster", func(c *Config) { c.SIP, c.SecretFile = []string{"10.0.0.1:5060"}, "s" },
			"10.0.0.1:5060", "10.0.0.1", "10.0.0.1:7060", "10.0.0.1:7061", "10.0.0.1:7062"},
		{"IPv6", func(c *Config) { c.SIP, c.SecretFile = []string{"[2001:db8::1]:5060"}, "s" },
			"[2001:db8::1]:5060", "2001:db8::1", "[2001:db8::1]:7060", "[2001:db8::1]:7061", "[2001:db8::1]:7062"},
		{"given values stay", func(c *Config) {
			c.Advertise, c.Domains, c.Cluster, c.ClusterStream = "192.0.2.1", []string{"a"}, "127.0.0.1:1", "127.0.0.1:9"
		}, "192.0.2.1", "a", "127.0.0.1:1", "127.0.0.1:9", "127.0.0.1:3"},
		{"nothing to tell others", func(*Config) {}, "", "", "127.0.0.1:7060", "127.0.0.1:7061", "127.0.0.1:7062"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		cfg.Derive()
		got := []string{cfg.Advertise, strings.Join(cfg.Domains, " "), cfg.Cluster, cfg.ClusterStream, cfg.ClusterRemote}
		want := []string{c.advertise, c.domain, c.cluster, c.clusterStream, c.clusterR}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, want %q", c.name, got, want)
		}
	}
}

func TestConfigValidateNamesTheField(t *testing.T) {
	good := validConfig()
	if err := good.Validate(); err != nil {
		t.Fatalf("the default is invalid: %v", err)
	}
	for field, change := range map[string]func(*Config){
		"name":              func(c *Config) { c.Name = "a b" },
		"data":              func(c *Config) { c.Data = "" },
		"durability":        func(c *Config) { c.Durability = "x" },
		"journal-size":      func(c *Config) { c.JournalSize = 4 << 20 },
		"region":            func(c *Config) { c.Region = strings.Repeat("x", 65) },
		"sip":               func(c *Config) { c.SIP = append(c.SIP, c.SIP[0]) },
		"advertise":         func(c *Config) { c.Advertise = "0.0.0.0" },
		"record-route":      func(c *Config) { c.RecordRoute = "sip.example.com;lr" },
		"domain":            func(c *Config) { c.Domains = []string{"a b"} },
		"cluster":           func(c *Config) { c.Cluster = "10.0.0.1:7060" },
		"cluster-stream":    func(c *Config) { c.ClusterStream = c.Cluster },
		"cluster-remote":    func(c *Config) { c.ClusterRemote = "x" },
		"join":              func(c *Config) { c.Join = []string{"host:0"} },
		"profile":           func(c *Config) { c.Profile = "" },
		"expires-min":       func(c *Config) { c.ExpiresMin = 0 },
		"expires-max":       func(c *Config) { c.ExpiresMax = 1 },
		"expires-jitter":    func(c *Config) { c.ExpiresJitter = 51 },
		"max-bindings":      func(c *Config) { c.MaxBindings = 0 },
		"binding-policy":    func(c *Config) { c.BindingPolicy = "" },
		"path":              func(c *Config) { c.Path = "off" },
		"publish-min":       func(c *Config) { c.PublishMin = 0 },
		"publish-max":       func(c *Config) { c.PublishMax = 1 },
		"publish-default":   func(c *Config) { c.PublishDefault = 3 * time.Hour },
		"subscribe-min":     func(c *Config) { c.SubscribeMin = 2 * time.Hour },
		"subscribe-max":     func(c *Config) { c.SubscribeMax = 1 },
		"subscribe-default": func(c *Config) { c.SubscribeDefault = 0 },
		"notify-interval":   func(c *Config) { c.NotifyInterval = -1 },
		"max-watchers":      func(c *Config) { c.MaxWatchers = 0 },
		"max-transactions":  func(c *Config) { c.MaxTransactions = 0 },
		"admin":             func(c *Config) { c.Admin = "localhost:1" },
		"log-level":         func(c *Config) { c.LogLevel = "" },
		"log-format":        func(c *Config) { c.LogFormat = "" },
		"stop-timeout":      func(c *Config) { c.StopTimeout = 0 },
	} {
		cfg := validConfig()
		change(&cfg)
		err := cfg.Validate()
		var fe *FieldError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), field+": ") {
			t.Errorf("%s: got %v", field, err)
		}
	}
}

func TestEveryFieldHasANameAndHelp(t *testing.T) {
	c := reflect.TypeFor[Config]()
	for i := range c.NumField() {
		tag := c.Field(i).Tag
		if tag.Get("name") == "" || tag.Get("help") == "" || tag.Get("group") == "" {
			t.Errorf("%s: %q", c.Field(i).Name, tag)
		}
	}
}

func TestParseDomains(t *testing.T) {
	got, err := ParseDomains([]string{"Example.COM.=SIP.example.com,10.0.0.1", "localhost=127.0.0.1,::1", "[2001:db8::1]"})
	want := []Domain{
		{Name: "example.com", Aliases: []string{"sip.example.com", "10.0.0.1"}},
		{Name: "localhost", Aliases: []string{"127.0.0.1", "::1"}}, {Name: "2001:db8::1"},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range [][]string{{""}, {"a=a"}, {"a", "b=a"}, {"a=,b"}, {"-a"}, {"a/b"}} {
		if _, err := ParseDomains(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
