package platform

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// generated marks, in secrets/examples, a value that is made up once: equal names get equal values, in every file.
const generated = "GENERATED:"

// secret is a Secret's manifest, as the examples and the generated files have it.
type secret struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   secretMeta        `json:"metadata"`
	Type       string            `json:"type,omitempty"`
	StringData map[string]string `json:"stringData"`
}

type secretMeta struct {
	Name      string            `json:"name"`
	Namespace string            `json:"namespace"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// secretFiles are the platform's Secrets: the examples say which there are, the files beside them hold the values.
type secretFiles struct{ dir string }

// read returns the file's Secrets by file name; a file that is not there is not in the map.
func (f secretFiles) read(folder string) (map[string]secret, error) {
	paths, err := filepath.Glob(filepath.Join(f.dir, folder, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	all := map[string]secret{}
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read secrets: %w", err)
		}
		var s secret
		if err := yaml.UnmarshalStrict(raw, &s); err != nil {
			return nil, fmt.Errorf("read the Secret in %s: %w", path, err)
		}
		all[filepath.Base(path)] = s
	}
	return all, nil
}

// known maps each generated value's name to what a Secret of the given kind holds for it. lookup returns a Secret's values
// by namespace and name, nil where there is none.
func known(examples map[string]secret, lookup func(namespace, name string) map[string]string) map[string]string {
	values := map[string]string{}
	for _, file := range sorted(examples) {
		example := examples[file]
		held := lookup(example.Metadata.Namespace, example.Metadata.Name)
		for key, value := range example.StringData {
			if name, ok := strings.CutPrefix(value, generated); ok && held[key] != "" {
				values[name] = held[key]
			}
		}
	}
	return values
}

// fill returns the examples with every generated value filled in: from the cluster where it has one (a database keeps the
// password it was made with), else from the files, else made up now.
func fill(examples map[string]secret, cluster, files map[string]string) (map[string]secret, error) {
	values := map[string]string{}
	filled := map[string]secret{}
	for _, file := range sorted(examples) {
		s := examples[file]
		data := map[string]string{}
		for _, key := range sorted(s.StringData) {
			name, ok := strings.CutPrefix(s.StringData[key], generated)
			if !ok {
				data[key] = s.StringData[key]
				continue
			}
			for _, source := range []map[string]string{cluster, files} {
				if values[name] == "" {
					values[name] = source[name]
				}
			}
			if values[name] == "" {
				made, err := password()
				if err != nil {
					return nil, err
				}
				values[name] = made
			}
			data[key] = values[name]
		}
		s.StringData = data
		filled[file] = s
	}
	return filled, nil
}

// write writes the Secrets whose files are absent, readable by their owner alone.
func (f secretFiles) write(all map[string]secret) error {
	for _, name := range sorted(all) {
		raw, err := yaml.Marshal(all[name])
		if err != nil {
			return fmt.Errorf("write the Secret %s: %w", name, err)
		}
		raw = append([]byte("# Made by platformctl; never commit it.\n"), raw...)
		if err := writeOnce(filepath.Join(f.dir, name), raw); err != nil {
			return fmt.Errorf("write secrets: %w", err)
		}
	}
	return nil
}

// writeOnce makes the file, whole or not at all; one that is there stays as it is.
func writeOnce(path string, content []byte) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	if err = errors.Join(err, temp.Close()); err == nil {
		// Link, unlike Rename, does not replace.
		if err = os.Link(temp.Name(), path); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	return errors.Join(err, os.Remove(temp.Name()))
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// password is 24 letters and digits, about 142 bits.
func password() (string, error) {
	const letters = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
	word := make([]byte, 24)
	for i := range word {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			return "", fmt.Errorf("make a password: %w", err)
		}
		word[i] = letters[n.Int64()]
	}
	return string(word), nil
}
