package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"platformctl/pkg/fault"
)

// served is nil where the engine that this machine's configuration describes is the one that the client talks to.
func (m Machine) served(ctx context.Context, settings map[string]any) error {
	endpoint, err := m.endpoint(ctx)
	if err != nil {
		return fmt.Errorf("ask docker where its engine is: %w", err)
	}
	served := []string{defaultEndpoint, "unix:///run/docker.sock"}
	if hosts, ok := settings["hosts"].([]any); ok {
		served = nil
		for _, host := range hosts {
			served = append(served, fmt.Sprint(host))
		}
	}
	if !slices.Contains(served, endpoint) {
		return fault.Unfit("start the engine that serves it, or: unset DOCKER_HOST DOCKER_CONTEXT; docker context use default",
			"the docker client talks to %s, where an engine started here would not listen", endpoint)
	}
	return nil
}

// engineSettings is what the machine's owner configured for the engine; empty where nothing.
func (m Machine) engineSettings() (map[string]any, error) {
	const file = "/etc/docker/daemon.json"
	settings := map[string]any{}
	text, err := os.ReadFile(m.path(file))
	if errors.Is(err, fs.ErrNotExist) {
		return settings, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &settings); err != nil {
		return nil, fault.Unfit("correct "+file, "the engine's configuration %s is not JSON: %w", file, err)
	}
	return settings, nil
}

// engineConfig is the configuration that an engine is started with: its owner's, and what the owner did not choose: our runtime
// where it is needed, and published ports that the kernel forwards, for a process that copies what passes them costs as much CPU as
// the services that it leads to.
func engineConfig(settings map[string]any, runtime string, capped bool) ([]byte, error) {
	if _, chosen := settings["userland-proxy"]; !chosen && settings["iptables"] != false {
		settings["userland-proxy"] = false
	}
	if _, chosen := settings["default-runtime"]; capped && !chosen {
		runtimes, _ := settings["runtimes"].(map[string]any)
		if runtimes == nil {
			runtimes = map[string]any{}
		}
		runtimes[runtimeName] = map[string]any{"path": runtime}
		settings["runtimes"], settings["default-runtime"] = runtimes, runtimeName
	}
	config, err := json.MarshalIndent(settings, "", "  ")
	return append(config, '\n'), err
}

func pidFileOf(settings map[string]any) string {
	if file, ok := settings["pidfile"].(string); ok {
		return file
	}
	return "/var/run/docker.pid"
}

func execRootOf(settings map[string]any) string {
	if folder, ok := settings["exec-root"].(string); ok {
		return folder
	}
	return "/var/run/docker"
}

// pidFile looks up the process that the engine's pid file names.
func (m Machine) pidFile() (process, bool, error) {
	settings, err := m.engineSettings()
	if err != nil {
		return process{}, false, err
	}
	return m.readPID(pidFileOf(settings))
}
