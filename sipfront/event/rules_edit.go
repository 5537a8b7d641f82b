package event

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.yaml.in/yaml/v3"
)

// PutRule puts a rule in front of all others of a rules file, which it makes if
// it is missing, in the place of one for the same presentity, watcher and
// package. Comments and the order of the others stay. canonical is as in
// ParseRules; the new file is in place as a whole or not at all.
func PutRule(path string, rule Rule, canonical func(string) (string, error)) error {
	info, text, err := readRules(path)
	if err != nil {
		return err
	}
	text, err = prepend(text, rule, canonical)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return replaceFile(path, info, text)
}

func readRules(path string) (mode os.FileMode, text []byte, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return 0o640, nil, nil
	}
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, nil, err
	}
	text, err = io.ReadAll(file)
	return info.Mode().Perm(), text, err
}

// prepend edits the text of a rules file; what comes out can be read.
func prepend(text []byte, rule Rule, canonical func(string) (string, error)) ([]byte, error) {
	if err := rule.check(canonical); err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if doc.Kind == 0 {
		doc = yaml.Node{Kind: yaml.DocumentNode, Content: []*yaml.Node{{Kind: yaml.MappingNode}}}
	}
	list, err := ruleList(doc.Content[0])
	if err != nil {
		return nil, err
	}
	var entry yaml.Node
	if err := entry.Encode(rule); err != nil {
		return nil, err
	}
	entry.Style = yaml.FlowStyle
	kept := []*yaml.Node{&entry}
	for _, n := range list.Content {
		var other Rule
		if n.Decode(&other) == nil && other.check(canonical) == nil &&
			other.Presentity == rule.Presentity && other.Watcher == rule.Watcher && other.Package == rule.Package {
			continue
		}
		kept = append(kept, n)
	}
	list.Content, list.Style = kept, 0
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	// YAML has corners that do not survive to be read and written.
	_, err = ParseRules(bytes.NewReader(out.Bytes()), canonical)
	return out.Bytes(), err
}

// ruleList finds the list named rules, or makes it.
func ruleList(root *yaml.Node) (*yaml.Node, error) {
	if root.Kind != yaml.MappingNode {
		return nil, errors.New("there is no list named rules")
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value != "rules" {
			continue
		}
		list := root.Content[i+1]
		switch {
		case list.Kind == yaml.SequenceNode:
			return list, nil
		case list.Tag == "!!null":
			*list = yaml.Node{Kind: yaml.SequenceNode}
			return list, nil
		}
		return nil, errors.New("rules is no list")
	}
	list := &yaml.Node{Kind: yaml.SequenceNode}
	root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Value: "rules"}, list)
	return list, nil
}

// replaceFile writes a file beside the old one and puts it in its place.
func replaceFile(path string, mode os.FileMode, text []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // it is gone if all went well
	_, err = tmp.Write(text)
	if err == nil {
		err = tmp.Chmod(mode)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
