package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"hereis"
)

const envPrefix = "HEREIS_"

// settings is a configuration and where each of its values came from, by the
// names of the fields.
type settings struct {
	config  hereis.Config
	sources map[string]string
	// unknownEnv lists variables with our prefix that are no setting.
	unknownEnv []string
}

// loadSettings merges defaults, a YAML file (path empty: none), the
// environment and the flags that were set; the later wins.
func (a *app) loadSettings(path string, flags map[string]any) (*settings, error) {
	fields := configFields()
	k := koanf.New(".")
	s := &settings{sources: make(map[string]string)}
	note := func(keys []string, source func(key string) string) {
		for _, key := range keys {
			s.sources[key] = source(key)
		}
	}
	defaults := fieldValues(hereis.DefaultConfig())
	if err := k.Load(confmap.Provider(defaults, ""), nil); err != nil {
		return nil, err
	}
	note(k.Keys(), func(string) string { return "default" })
	if path != "" {
		keys, err := loadYAML(k, path, fields)
		if err != nil {
			return nil, err
		}
		note(keys, func(string) string { return "file " + path })
	}
	fromEnv := koanf.New(".")
	if err := fromEnv.Load(a.envProvider(fields, &s.unknownEnv), nil); err != nil {
		return nil, err
	}
	note(fromEnv.Keys(), func(key string) string { return "env " + envName(key) })
	if err := k.Merge(fromEnv); err != nil {
		return nil, err
	}
	if err := k.Load(confmap.Provider(flags, ""), nil); err != nil {
		return nil, err
	}
	for key := range flags {
		s.sources[key] = "flag --" + key
	}
	if err := decode(k, &s.config); err != nil {
		return nil, err
	}
	return s, a.complete(s)
}

// complete derives what follows, checks everything, and adds to each complaint
// where the value came from.
func (a *app) complete(s *settings) error {
	derived := s.config.Derive()
	if s.config.Advertise == "" {
		if ip, err := a.outboundIP(); err == nil {
			s.config.Advertise = ip.String()
			s.sources["advertise"] = "the host's address"
			derived = append(derived, s.config.Derive()...)
		}
	}
	for _, key := range derived {
		s.sources[key] = "derived"
	}
	errs := []error{s.config.Validate(), readable("users", s.config.Users), readable("secret-file", s.config.SecretFile),
		readable("presence-rules", s.config.PresenceRules), readable("lists", s.config.Lists)}
	var texts []error
	for _, err := range flatten(errs...) {
		var fe *hereis.FieldError
		if errors.As(err, &fe) && s.sources[fe.Field] != "" && s.sources[fe.Field] != "default" {
			err = fmt.Errorf("%w (%s)", err, s.sources[fe.Field])
		}
		texts = append(texts, err)
	}
	return errors.Join(texts...)
}

func loadYAML(k *koanf.Koanf, path string, fields map[string]field) ([]string, error) {
	fromFile := koanf.New(".")
	if err := fromFile.Load(file.Provider(path), yaml.Parser()); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var unknown []string
	for key := range fromFile.Raw() {
		if _, ok := fields[key]; !ok {
			unknown = append(unknown, key)
		}
	}
	if len(unknown) > 0 {
		slices.Sort(unknown)
		return nil, fmt.Errorf("%s: unknown: %s", path, strings.Join(unknown, ", "))
	}
	return fromFile.Keys(), k.Merge(fromFile)
}

// envProvider reads HEREIS_EXPIRES_MIN as expires-min. Lists are separated by
// blanks, those of addresses by commas too (a domain's aliases have commas).
// An empty variable is as good as none. Others with our prefix are collected,
// not refused: an orchestrator may put there what it likes.
func (a *app) envProvider(fields map[string]field, unknown *[]string) koanf.Provider {
	return env.Provider("", env.Opt{
		Prefix:      envPrefix,
		EnvironFunc: func() []string { return a.environ },
		TransformFunc: func(name, value string) (string, any) {
			key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, envPrefix)), "_", "-")
			f, ok := fields[key]
			switch {
			case !ok:
				if name != "HEREIS_CONFIG" && name != "HEREIS_OUTPUT" && !strings.HasPrefix(name, "HEREIS_BASE_") {
					*unknown = append(*unknown, name)
				}
				return "", nil
			case value == "":
				return "", nil
			case f.list:
				return key, strings.FieldsFunc(value, func(r rune) bool { return r == ' ' || r == '\n' || r == ',' && f.commas })
			}
			return key, value
		},
	})
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, "-", "_"))
}

func decode(k *koanf.Koanf, cfg *hereis.Config) error {
	err := k.UnmarshalWithConf("", cfg, koanf.UnmarshalConf{
		DecoderConfig: &mapstructure.DecoderConfig{
			Result:           cfg,
			TagName:          "name",
			ErrorUnused:      true,
			WeaklyTypedInput: true,
			DecodeHook:       decodeDuration,
		},
	})
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	return nil
}

// decodeDuration wants a unit: a bare number would be nanoseconds.
func decodeDuration(from, to reflect.Type, v any) (any, error) {
	if to != reflect.TypeFor[time.Duration]() || from == to {
		return v, nil
	}
	text, ok := v.(string)
	if !ok {
		return nil, fmt.Errorf("%v has no unit, as in 60s or 1h", v)
	}
	return time.ParseDuration(text)
}

// field is what is known of a setting from its declaration.
type field struct {
	index  int
	list   bool
	commas bool
}

func configFields() map[string]field {
	t := reflect.TypeFor[hereis.Config]()
	fields := make(map[string]field)
	for i := range t.NumField() {
		f := t.Field(i)
		fields[f.Tag.Get("name")] = field{
			index:  i,
			list:   f.Type.Kind() == reflect.Slice,
			commas: f.Tag.Get("sep") != "none",
		}
	}
	return fields
}

func fieldValues(cfg hereis.Config) map[string]any {
	v := reflect.ValueOf(cfg)
	values := make(map[string]any)
	for name, f := range configFields() {
		values[name] = v.Field(f.index).Interface()
	}
	return values
}

// flagsSet returns the settings that stand on the command line.
func flagsSet(line *kong.Context) map[string]any {
	fields := configFields()
	set := make(map[string]any)
	for _, p := range line.Path {
		if p.Flag == nil || p.Resolved {
			continue
		}
		if _, ok := fields[p.Flag.Name]; ok {
			set[p.Flag.Name] = p.Flag.Target.Interface()
		}
	}
	return set
}

// helpWithDefault adds its default to the help of each setting of a node.
func helpWithDefault() kong.HelpValueFormatter {
	defaults := fieldValues(hereis.DefaultConfig())
	return func(v *kong.Value) string {
		help := kong.DefaultHelpValueFormatter(v)
		if d, ok := defaults[v.Name]; ok && v.Flag != nil && v.Flag.Group != nil && valueText(d) != "" && valueText(d) != "false" {
			help = strings.TrimSuffix(help, ".") + " (default " + valueText(d) + ")."
		}
		return help
	}
}

// print shows every value and its source.
func (s *settings) print(a *app) error {
	t := reflect.TypeFor[hereis.Config]()
	v := reflect.ValueOf(s.config)
	if a.json {
		type entry struct {
			Value  any    `json:"value"`
			Source string `json:"source"`
		}
		all := make(map[string]entry)
		for i := range t.NumField() {
			value := v.Field(i).Interface()
			if d, ok := value.(time.Duration); ok {
				value = d.String()
			}
			name := t.Field(i).Tag.Get("name")
			all[name] = entry{Value: value, Source: s.sources[name]}
		}
		return a.printJSON(all)
	}
	tw := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "NAME\tVALUE\tSOURCE")
	for i := range t.NumField() {
		name := t.Field(i).Tag.Get("name")
		fmt.Fprintf(tw, "%s\t%s\t%s\n", name, orDash(valueText(v.Field(i).Interface())), s.sources[name])
	}
	return tw.Flush()
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func valueText(v any) string {
	if list, ok := v.([]string); ok {
		return strings.Join(list, " ")
	}
	return fmt.Sprint(v)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func readable(field, path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return &hereis.FieldError{Field: field, Reason: err.Error()}
	}
	return nil
}

// flatten takes joined errors apart.
func flatten(errs ...error) (flat []error) {
	for _, err := range errs {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			flat = append(flat, flatten(joined.Unwrap()...)...)
		} else if err != nil {
			flat = append(flat, err)
		}
	}
	return flat
}

// outboundIP asks the kernel which of our addresses it would send from. No
// packet is sent: the address is reserved for documentation (RFC 5737).
func outboundIP() (netip.Addr, error) {
	conn, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	at, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return at.Addr(), err
}
