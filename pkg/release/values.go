package release

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v3/pkg/chartutil"

	"platformctl/pkg/fault"
)

// valuesFile is a values file as Helm reads it, and as it was written, line by line.
type valuesFile struct {
	path   string
	root   *yaml.Node // the top mapping; nil for an empty file
	values map[string]any
}

// yamlFault is how the YAML library words a fault that has a place.
var yamlFault = regexp.MustCompile(`(?s)^yaml: (?:unmarshal errors:\n\s*)?line (\d+): (.*)$`)

// readValues reads one values file. A fault in it is a usage error with file and line.
func readValues(path string) (*valuesFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Usage("run this in the checkout, or name it with --project", "read values: %w", err)
	}
	broken := func(err error) error {
		if match := yamlFault.FindStringSubmatch(err.Error()); match != nil {
			line, _ := strconv.Atoi(match[1]) // it matched digits
			if strings.HasPrefix(match[2], "did not find expected") {
				line++ // the library's parser, unlike its scanner, counts from 0
			}
			return fault.Usage("mend the file", "%s:%d: this is not YAML: %s", path, line, match[2])
		}
		return fault.Usage("mend the file", "%s: this is not YAML: %s", path, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var document yaml.Node
	documents := yaml.NewDecoder(bytes.NewReader(text))
	if err := documents.Decode(&document); err != nil && !errors.Is(err, io.EOF) {
		return nil, broken(err)
	}
	var second yaml.Node
	if err := documents.Decode(&second); err == nil {
		return nil, fault.Usage("keep the first and remove the rest", "%s:%d: a values file is one YAML document, and here begins another", path, second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, broken(err)
	}
	file := &valuesFile{path: path}
	if document.Kind == 0 {
		return file, nil
	}
	file.root = resolve(document.Content[0])
	if file.root.Tag == "!!null" {
		file.root = nil
		return file, nil
	}
	if file.root.Kind != yaml.MappingNode {
		return nil, fault.Usage("write it as key: value", "%s:%d: a values file is a map at its top, not %s", path, file.root.Line, kind(file.root))
	}
	// Decoding finds what the grammar allows and a map does not: the same key twice.
	var decoded map[string]any
	if err := file.root.Decode(&decoded); err != nil {
		return nil, broken(err)
	}
	// Helm's own reading is what the chart gets: it has its own idea of numbers.
	file.values, err = chartutil.ReadValues(text)
	if err != nil {
		return nil, broken(err)
	}
	return file, nil
}

// resolve follows an alias to what it stands for.
func resolve(node *yaml.Node) *yaml.Node {
	for node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	return node
}

func kind(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// problems lists what the file says that a chart with these default values does not understand, a line each. A default
// of {} is a map with free keys.
func (f *valuesFile) problems(defaults map[string]any) []string {
	if f.root == nil {
		return nil
	}
	return f.compare(f.root, defaults, "", paths(defaults, ""))
}

func (f *valuesFile) compare(node *yaml.Node, known map[string]any, path string, all []string) []string {
	var problems []string
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], resolve(node.Content[i+1])
		if key.Tag == "!!merge" {
			problems = append(problems, f.compare(value, known, path, all)...)
			continue
		}
		at := join(path, key.Value)
		expected, ok := known[key.Value]
		if !ok {
			problems = append(problems, fmt.Sprintf("%s:%d: the chart does not know %s%s", f.path, key.Line, at, advice(at, all)))
			continue
		}
		if value.Tag == "!!null" {
			continue // Helm's way to take a default away
		}
		switch expected := expected.(type) {
		case map[string]any:
			if value.Kind != yaml.MappingNode {
				problems = append(problems, f.mistyped(key, at, "a map", value))
			} else if len(expected) > 0 {
				problems = append(problems, f.compare(value, expected, at, all)...)
			}
		case []any:
			if value.Kind != yaml.SequenceNode {
				problems = append(problems, f.mistyped(key, at, "a list", value))
			}
		default:
			if value.Kind != yaml.ScalarNode {
				problems = append(problems, f.mistyped(key, at, "a single value", value))
			} else if wanted := scalar(expected); wanted != "" && value.Tag == "!!str" {
				problems = append(problems, fmt.Sprintf("%s:%d: %s is %s in this chart, not %q", f.path, value.Line, at, wanted, value.Value))
			}
		}
	}
	return problems
}

// scalar says what a default value wants where a word would do no good; "" where anything may stand.
func scalar(value any) string {
	switch value.(type) {
	case bool:
		return "true or false"
	case int, int64, float64:
		return "a number"
	}
	return ""
}

func (f *valuesFile) mistyped(key *yaml.Node, at, wanted string, got *yaml.Node) string {
	return fmt.Sprintf("%s:%d: %s is %s in this chart, not %s", f.path, key.Line, at, wanted, kind(got))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// paths lists every key of a tree of values, with its way from the top, sorted.
func paths(values map[string]any, path string) []string {
	var all []string
	for _, key := range slices.Sorted(maps.Keys(values)) {
		at := join(path, key)
		all = append(all, at)
		if table, ok := values[key].(map[string]any); ok {
			all = append(all, paths(table, at)...)
		}
	}
	return all
}

// advice names the known key that was most likely meant: the same word in another place, or a similar one in this place.
func advice(at string, known []string) string {
	parent, word := split(at)
	best, least := "", len(word)/2+1
	for _, candidate := range known {
		where, name := split(candidate)
		far := fault.Distance(word, name)
		switch {
		case name == word:
			far = 0
		case where != parent:
			continue
		case strings.HasPrefix(word, name) || strings.HasPrefix(name, word):
			far = 1
		}
		if far < least {
			best, least = candidate, far
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

func split(path string) (parent, key string) {
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}
