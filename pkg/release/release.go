// Package release installs charts: it is the only room that knows Helm.
//
// A release carries the hash of all that it was made of, chart and values, in its labels. So one list call tells what has
// to be done, and doing it again does nothing. Nothing here waits for pods: that is for who watches them.
package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"helm.sh/helm/v3/pkg/action"
	helm "helm.sh/helm/v3/pkg/release"
	"helm.sh/helm/v3/pkg/storage"
	"helm.sh/helm/v3/pkg/storage/driver"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"platformctl/pkg/fault"
)

// The labels of the Secret that Helm keeps for each revision.
const (
	hashLabel   = "platformctl/hash"   // the release's Hash
	claimsLabel = "platformctl/claims" // the claimsHash of its manifest
)

// history is how many revisions of a release are kept; Helm's own default in the SDK is all of them.
const history = 5

// Spec is a release as it is wanted.
type Spec struct {
	Name       string
	Namespace  string
	Chart      string         // the chart's folder
	ValueFiles []string       // later ones win
	Override   map[string]any // wins over them all, such as the image that was loaded into the node
}

// Result is what Apply did.
type Result struct {
	Action   Action
	Revision int    // the revision that is deployed now
	Found    string // for Repaired: what was found
}

// Action is one of the things that Apply can do.
type Action string

// What Apply did.
const (
	Installed Action = "installed"
	Upgraded  Action = "upgraded"
	Repaired  Action = "repaired" // a run before was cut off or failed; what it left was taken on
	Unchanged Action = "unchanged"
)

// String is the result in a few words.
func (r Result) String() string {
	switch r.Action {
	case Upgraded:
		return fmt.Sprintf("upgraded to revision %d", r.Revision)
	case Repaired:
		return fmt.Sprintf("repaired (%s), now revision %d", r.Found, r.Revision)
	}
	return string(r.Action)
}

// Client works on the releases of one cluster. It may be used by several goroutines at once, for different releases.
type Client struct {
	building  sync.Mutex // Helm's clients write to globals while they are made
	configure func(namespace string) (*action.Configuration, error)
	stored    func(namespace string) *storage.Storage // the records alone, for a look without Helm's clients
	mapper    meta.RESTMapper
	objects   metadata.Interface
	live      dynamic.Interface
}

// New returns a Client for the cluster that kubeconfig's current context names. What Helm and the API server have to say
// on the way goes to log, which must stand writes from several goroutines. New does not connect.
func New(kubeconfig []byte, log io.Writer) (*Client, error) {
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read the cluster's kubeconfig: %w", err)
	}
	config.QPS, config.Burst = 50, 100
	config.Timeout = requestTimeout
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return strict{next} })
	config.WarningHandler = rest.NewWarningWriter(log, rest.WarningWriterOptions{Deduplicate: true})
	shared, err := newCluster(config)
	if err != nil {
		return nil, err
	}
	objects, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	live, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	typed, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for the cluster: %w", err)
	}
	return &Client{
		mapper:  shared.mapper,
		objects: objects,
		live:    live,
		stored: func(namespace string) *storage.Storage {
			secrets := driver.NewSecrets(typed.CoreV1().Secrets(namespace))
			secrets.Log = func(string, ...any) {}
			records := storage.Init(secrets)
			records.Log = secrets.Log
			return records
		},
		configure: func(namespace string) (*action.Configuration, error) {
			capabilities, err := shared.capabilities()
			if err != nil {
				return nil, err
			}
			cfg := &action.Configuration{Capabilities: capabilities}
			err = cfg.Init(getter{shared, namespace}, namespace, "secret", func(format string, args ...any) {
				fmt.Fprintf(log, "helm: "+namespace+": "+format+"\n", args...)
			})
			return cfg, err
		},
	}, nil
}

// configuration makes Helm's clients for a namespace, one after another.
func (c *Client) configuration(namespace string) (*action.Configuration, error) {
	c.building.Lock()
	defer c.building.Unlock()
	cfg, err := c.configure(namespace)
	if err != nil {
		return nil, fmt.Errorf("prepare Helm for namespace %s: %w", namespace, err)
	}
	return cfg, nil
}

// Apply makes the cluster have the release that spec describes: it installs or upgrades it, takes on what an earlier run
// left half done, puts back objects that have gone and fields that somebody changed, and does nothing where the deployed revision has the same hash and is
// whole. note, which may be nil, hears what is about to be done. When the API server has taken the manifests, Apply
// returns; it does not wait for pods.
//
// The caller sees to it that nobody else applies the same release meanwhile. ctx is looked at before the cluster is
// changed; from then on Apply goes on to the end, so that nothing works on behind the back of a caller that was told it
// had stopped. A failed revision stays in Helm's history, with its objects.
//
// Faults in chart or values, and a change of volumeClaimTemplates, are reported as usage errors before anything is changed.
func (c *Client) Apply(ctx context.Context, spec Spec, note func(string)) (Result, error) {
	if note == nil {
		note = func(string) {}
	}
	want, err := load(spec)
	if err != nil {
		return Result{}, err
	}
	manifest, err := want.render()
	if err != nil {
		return Result{}, err
	}
	claims, err := claimsHash(manifest)
	if err != nil {
		return Result{}, err
	}
	labels := map[string]string{hashLabel: want.hash, claimsLabel: claims}
	cfg, err := c.configuration(spec.Namespace)
	if err != nil {
		return Result{}, err
	}
	last, err := cfg.Releases.Last(spec.Name)
	if err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return Result{}, fmt.Errorf("look up release %s: %w", spec.Name, err)
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	if last == nil {
		note("installing")
		return c.install(cfg, want, labels, Result{Action: Installed})
	}
	status := last.Info.Status
	if status == helm.StatusDeployed && last.Labels[hashLabel] == want.hash {
		amiss, err := c.amiss(ctx, spec, manifest)
		if err != nil {
			return Result{}, err
		}
		if len(amiss) == 0 {
			return Result{Action: Unchanged, Revision: last.Version}, nil
		}
		result := Result{Action: Repaired, Found: strings.Join(lines(amiss), ", ")}
		note(result.Found)
		return c.upgrade(cfg, want, labels, result)
	}
	if status == helm.StatusUninstalling || status == helm.StatusUninstalled {
		result := Result{Action: Repaired, Found: fmt.Sprintf("revision %d was left %s", last.Version, status)}
		note(result.Found + ": finishing that, then installing")
		if err := uninstall(cfg, spec.Name); err != nil {
			return Result{}, err
		}
		return c.install(cfg, want, labels, result)
	}
	if err := refuseClaimChange(spec, last.Manifest, manifest); err != nil {
		return Result{}, err
	}
	result := Result{Action: Upgraded}
	if status != helm.StatusDeployed {
		result = Result{Action: Repaired, Found: fmt.Sprintf("revision %d was left %s", last.Version, status)}
	}
	if status.IsPending() {
		// Who made it is gone. Helm goes on from a failed revision, and the objects that are there already stay.
		last.SetStatus(helm.StatusFailed, "cut off while it was "+status.String())
		if err := cfg.Releases.Update(last); err != nil {
			return Result{}, fmt.Errorf("mark revision %d of release %s as failed: %w", last.Version, spec.Name, err)
		}
	}
	note(fmt.Sprintf("upgrading from revision %d (%s)", last.Version, status))
	return c.upgrade(cfg, want, labels, result)
}

func (c *Client) install(cfg *action.Configuration, want *loaded, labels map[string]string, result Result) (Result, error) {
	install := action.NewInstall(cfg)
	install.ReleaseName, install.Namespace = want.spec.Name, want.spec.Namespace
	install.DisableOpenAPIValidation = true // strict has the server do it
	install.Labels = labels
	// Not the caller's context: Helm would return at once when it ends, and go on installing in the background.
	done, err := install.RunWithContext(context.Background(), want.chart, want.values)
	if err != nil {
		return Result{}, want.fault("install", err)
	}
	result.Revision = done.Version
	return result, nil
}

func (c *Client) upgrade(cfg *action.Configuration, want *loaded, labels map[string]string, result Result) (Result, error) {
	upgrade := action.NewUpgrade(cfg)
	upgrade.Namespace, upgrade.MaxHistory = want.spec.Namespace, history
	upgrade.DisableOpenAPIValidation = true
	upgrade.Labels = labels
	done, err := upgrade.RunWithContext(context.Background(), want.spec.Name, want.chart, want.values)
	if err != nil {
		return Result{}, want.fault("upgrade", err)
	}
	result.Revision = done.Version
	return result, nil
}

// Uninstall removes a release and its history; one that is not there is no error. Volume claims that a StatefulSet made
// stay, as Kubernetes has it. ctx is looked at first, then Uninstall goes on to the end; it does not wait for pods.
func (c *Client) Uninstall(ctx context.Context, name, namespace string) error {
	cfg, err := c.configuration(namespace)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return uninstall(cfg, name)
}

func uninstall(cfg *action.Configuration, name string) error {
	// Not IgnoreNotFound: it ignores every error of the look-up.
	if _, err := action.NewUninstall(cfg).Run(name); err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return fmt.Errorf("uninstall release %s: %w", name, err)
	}
	return nil
}

// fault says what failed. Nothing is rolled back, so the cure is to look, mend, and apply again.
func (l *loaded) fault(what string, err error) error {
	return fault.New(fault.CodeFailed, "", "%s release %s in namespace %s: %w", what, l.spec.Name, l.spec.Namespace, brief{err})
}

// brief leaves out of an API server's error the whole object that it quotes; what is wrong with it comes after that.
type brief struct{ error }

func (b brief) Error() string {
	return quotedObject.ReplaceAllString(b.error.Error(), `Invalid value: …: `)
}

func (b brief) Unwrap() error { return b.error }

var quotedObject = regexp.MustCompile(`(?s)Invalid value: "\{.*\}": `)
