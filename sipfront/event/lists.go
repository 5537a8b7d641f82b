package event

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
)

const (
	nsResourceLists   = "urn:ietf:params:xml:ns:resource-lists" // RFC 4826
	typeResourceLists = "application/resource-lists+xml"
)

// TypeResourceLists is the media type that ParseResourceLists reads.
const TypeResourceLists = typeResourceLists

// Resource is one member of a resource list.
type Resource struct {
	URI string
	// Name is the display-name of the entry, if it has one.
	Name string
}

// TooManyResourcesError says that a list has more members than are allowed.
type TooManyResourcesError struct{ Max int }

func (e TooManyResourcesError) Error() string {
	return fmt.Sprintf("resource list has more than %d members", e.Max)
}

// ParseResourceLists reads the lists that a SUBSCRIBE may carry (RFC 5367 4),
// as one flat list: entries of nested lists are members like the others, and
// an URI counts once. References to lists elsewhere (external, entry-ref) are
// not followed: a document with one is ErrDocument, as the subscriber would
// wait for members that never come. Errors are ErrMediaType, ErrDocument and
// TooManyResourcesError.
func ParseResourceLists(mediaType string, body []byte, maxMembers int) ([]Resource, error) {
	if mediaType != typeResourceLists {
		return nil, ErrMediaType
	}
	root, err := parseXML(body, xml.Name{Space: nsResourceLists, Local: "resource-lists"})
	if err != nil {
		return nil, err
	}
	var members []Resource
	root.all(nsResourceLists, "list", func(l *element) {
		if err == nil {
			members, err = appendList(members, l, maxMembers)
		}
	})
	if err != nil {
		return nil, err
	}
	if len(members) == 0 {
		return nil, fmt.Errorf("%w: no entry in any list", ErrDocument)
	}
	return members, nil
}

func appendList(members []Resource, list *element, maxMembers int) ([]Resource, error) {
	for _, k := range list.kids {
		var err error
		switch {
		case k.el == nil:
		case k.el.is(nsResourceLists, "entry"):
			members, err = appendEntry(members, k.el, maxMembers)
		case k.el.is(nsResourceLists, "list"):
			members, err = appendList(members, k.el, maxMembers)
		case k.el.is(nsResourceLists, "external"), k.el.is(nsResourceLists, "entry-ref"):
			err = fmt.Errorf("%w: %s is not followed", ErrDocument, k.el.name.Local)
		}
		if err != nil {
			return nil, err
		}
	}
	return members, nil
}

func appendEntry(members []Resource, e *element, maxMembers int) ([]Resource, error) {
	uri := e.attr("uri")
	if uri == "" {
		return nil, fmt.Errorf("%w: entry without uri", ErrDocument)
	}
	if slices.ContainsFunc(members, func(r Resource) bool { return r.URI == uri }) {
		return members, nil
	}
	if len(members) >= maxMembers {
		return nil, TooManyResourcesError{Max: maxMembers}
	}
	return append(members, Resource{URI: uri, Name: e.first(nsResourceLists, "display-name").text()}), nil
}

// Lists are resource lists by the AoR that one subscribes to.
type Lists map[string][]Resource

// ParseLists reads a file of resource lists: YAML with the address of each list
// and its members. canonical makes an AoR of what a person wrote, or says why
// it is none.
func ParseLists(r io.Reader, maxMembers int, canonical func(string) (string, error)) (Lists, error) {
	var file map[string][]string
	if err := yaml.NewDecoder(r).Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	lists := Lists{}
	for _, name := range slices.Sorted(maps.Keys(file)) {
		aor, err := canonical(name)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", name, err)
		}
		if lists[aor] != nil {
			return nil, fmt.Errorf("list %s is there twice", name)
		}
		members := []Resource{}
		for _, m := range file[name] {
			uri, err := canonical(m)
			if err != nil {
				return nil, fmt.Errorf("list %s: member %s: %w", name, m, err)
			}
			if !slices.ContainsFunc(members, func(r Resource) bool { return r.URI == uri }) {
				members = append(members, Resource{URI: uri})
			}
		}
		if len(members) > maxMembers {
			return nil, fmt.Errorf("list %s: %w", name, TooManyResourcesError{maxMembers})
		}
		lists[aor] = members
	}
	// A list in a list would have to be watched as a list.
	for name, members := range lists {
		for _, m := range members {
			if lists[m.URI] != nil {
				return nil, fmt.Errorf("list %s: member %s is a list", name, m.URI)
			}
		}
	}
	return lists, nil
}
