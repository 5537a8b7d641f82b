package credentials

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Errors of the functions that change a file.
var (
	ErrExists = errors.New("user exists")
	ErrNoUser = errors.New("no such user")
	// ErrPassword is a password that cannot be one: empty, or with a control character.
	ErrPassword = errors.New("password is empty or has a control character")
)

// Add writes a new user into a file, which it makes if it is missing. name is
// USER@DOMAIN; all three algorithms are stored.
func Add(path, name, password string) error {
	line, err := newLine(name, password)
	if err != nil {
		return err
	}
	return edit(path, true, func(lines []string) ([]string, error) {
		if find(lines, name) >= 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrExists)
		}
		return append(lines, line), nil
	})
}

// SetPassword writes a new password of a user into a file.
func SetPassword(path, name, password string) error {
	line, err := newLine(name, password)
	if err != nil {
		return err
	}
	return edit(path, false, func(lines []string) ([]string, error) {
		i := find(lines, name)
		if i < 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrNoUser)
		}
		lines[i] = line
		return lines, nil
	})
}

// Remove takes a user out of a file.
func Remove(path, name string) error {
	return edit(path, false, func(lines []string) ([]string, error) {
		i := find(lines, name)
		if i < 0 {
			return nil, fmt.Errorf("%s: %w", name, ErrNoUser)
		}
		return slices.Delete(lines, i, i+1), nil
	})
}

// Listed is one user of a file.
type Listed struct {
	Name       string
	Algorithms []string
}

// List reads the users of a file, sorted by name.
func List(path string) ([]Listed, error) {
	_, set, err := load(path)
	if err != nil {
		return nil, err
	}
	list := make([]Listed, 0, set.Len())
	for name, e := range set.users {
		u := Listed{Name: name}
		for a := range Algorithm(algorithms) {
			if e.has.Has(a) {
				u.Algorithms = append(u.Algorithms, a.String())
			}
		}
		list = append(list, u)
	}
	slices.SortFunc(list, func(a, b Listed) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func newLine(name, password string) (string, error) {
	if _, err := (namesOf{}).check(name); err != nil {
		return "", err
	}
	if password == "" || strings.ContainsFunc(password, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", ErrPassword
	}
	user, realm, _ := strings.Cut(name, "@")
	line := name
	for a := range Algorithm(algorithms) {
		line += " " + a.String() + "=" + a.HA1(user, realm, password)
	}
	return line, nil
}

func find(lines []string, name string) int {
	return slices.IndexFunc(lines, func(l string) bool {
		words := strings.Fields(l)
		return len(words) > 0 && words[0] == name
	})
}

// edit changes the lines of a file: readers see the old file or the new one,
// whole. Others that edit wait. A file that is broken is left alone.
func edit(path string, create bool, change func(lines []string) ([]string, error)) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	old, err := os.ReadFile(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !(missing && create) {
		return err
	}
	if _, err := Parse(bytes.NewReader(old)); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	var lines []string
	for s := bufio.NewScanner(bytes.NewReader(old)); s.Scan(); {
		lines = append(lines, s.Text())
	}
	if lines, err = change(lines); err != nil {
		return err
	}
	text := ""
	if len(lines) > 0 {
		text = strings.Join(lines, "\n") + "\n"
	}
	return replace(path, text)
}

// lock keeps others that edit a file of a folder out, until unlock.
func lock(dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), d.Close())
	}
	return d.Close, nil
}

// replace puts a file with this text in the place of another, which keeps its
// owner and group and loses what others may do; a new one is its owner's alone.
func replace(path, text string) (err error) {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".users-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	_, err = tmp.WriteString(text)
	if err == nil {
		err = keepOwner(tmp, path)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err = os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// keepOwner lets a node that runs as another user still read the file after root has changed it.
func keepOwner(tmp *os.File, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && (int(st.Uid) != os.Getuid() || int(st.Gid) != os.Getgid()) {
		if err := tmp.Chown(int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	return tmp.Chmod(0o600 | info.Mode().Perm()&0o060)
}
